"""The schema of every table that crosses from one node to another."""

from typing import Any

SCHEMAS: dict[str, Any] = {}
