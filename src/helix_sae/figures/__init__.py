"""One function a figure: data in, figure out."""
