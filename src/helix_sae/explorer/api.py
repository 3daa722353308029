"""The application: a JSON API over a session, the explorer's pages, and the pages of a run beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from helix_sae import __version__
from helix_sae.errors import HelixSaeError
from helix_sae.explorer import answers, schemas
from helix_sae.explorer.contrast import contrast
from helix_sae.explorer.edits import edit, saturation
from helix_sae.explorer.guard import Guard
from helix_sae.explorer.interventions import Setting, intervene
from helix_sae.explorer.limits import Limits, TooMuchError, TooOftenError
from helix_sae.explorer.records import Record, make_record, pasted_records
from helix_sae.explorer.session import Check, Session
from helix_sae.explorer.tracks import activations_along, concept_tracks, paired, strongest
from helix_sae.explorer.work import ClientGoneError, Worker
from helix_sae.mrna.structure import viennarna_available

SITE = Path(__file__).with_name("site")
# The look of report and atlas.
_HOUSE_STYLE = Path(__file__).parents[1] / "reporting" / "templates" / "style.css"
_OF_A_RUN = ("atlas", "figures", "tables")
_MOST_NAMES = 50
_STATUS = ((TooMuchError, 413), (TooOftenError, 503))


class Api:
    """Answers of a session.

    Parameters
    ----------
    session : Session
    limits : Limits
    run_pages : Path, optional
        A folder with ``report.html`` and ``atlas/`` of the same run.
    """

    def __init__(self, session: Session, limits: Limits, run_pages: Path | None = None) -> None:
        self.session, self.limits, self.run_pages = session, limits, run_pages
        self.worker = Worker(limits.waiting)
        self._features = answers.of_features(session)

    def add_routes(self, app: FastAPI) -> None:
        """Put every question in its place."""
        refused: Any = {
            status: {"model": schemas.ErrorAnswer} for status in (400, 401, 403, 413, 415, 422, 429, 503)
        }
        for path, method, function in (
            ("/api/about", "GET", self.about),
            ("/api/features", "GET", self.features),
            ("/api/records", "GET", self.records),
            ("/api/record", "GET", self.record),
            ("/api/paste", "POST", self.paste),
            ("/api/read", "POST", self.read),
            ("/api/fold", "POST", self.fold),
            ("/api/edit", "POST", self.edit),
            ("/api/saturation", "POST", self.saturation),
            ("/api/intervene", "POST", self.intervene),
            ("/api/values", "POST", self.values),
            ("/api/contrast", "POST", self.contrast),
        ):
            app.add_api_route(path, function, methods=[method], responses=refused)

    async def about(self) -> schemas.AboutAnswer:
        """What stands behind this server."""
        session, pages = self.session, self.run_pages
        return schemas.AboutAnswer(
            title=session.title,
            version=__version__,
            model=session.model.fingerprint,
            codon_markers=session.codon_markers,
            sites=list(session.sites),
            n_features=len(session.by_name),
            read_outs=list(session.read_outs),
            n_reference=session.reference.n_sequences,
            n_records=len(session.table),
            folds=viennarna_available(),
            atlas=pages is not None and (pages / "atlas" / "index.html").is_file(),
            report=pages is not None and (pages / "report.html").is_file(),
            limits=asdict(self.limits),
        )

    async def features(self) -> schemas.FeaturesAnswer:
        """Every feature, with what is known of it."""
        return self._features

    async def records(self, holds: schemas.Name = "") -> schemas.OwnRecordsAnswer:
        """Names of records of the run."""
        return schemas.OwnRecordsAnswer(names=self.session.names_holding(holds, _MOST_NAMES))

    async def record(self, name: schemas.Name) -> schemas.OwnRecordAnswer:
        """A record of the run, whole."""
        record, measured = self.session.own_record(name)
        return schemas.OwnRecordAnswer(record=answers.of_record(record), measured=measured)

    async def paste(self, question: schemas.PasteQuestion) -> schemas.PasteAnswer:
        """Read a sequence or FASTA, and find or mark the start codon."""
        records = pasted_records(question.text, rule=question.start)
        self.limits.check(*records)
        return schemas.PasteAnswer(records=[answers.of_record(one) for one in records])

    async def read(self, request: Request, question: schemas.ReadQuestion) -> schemas.ReadAnswer:
        """Read-outs, fit, concepts, and the activations of chosen and of the strongest features."""
        record = self._record(question.sequence)
        chosen = [self.session.feature(name) for name in question.features]

        def work(check: Check) -> schemas.ReadAnswer:
            reading = self.session.read(record)
            check()
            tracks = activations_along(self.session, reading, chosen)
            shown = {track.feature for track in tracks}
            more = strongest(self.session, reading, question.strongest)
            tracks += [track for track in more if track.feature not in shown]
            return answers.of_reading(
                self.session, reading, concept_tracks(record), tracks[: self.limits.tracks]
            )

        return await self.worker.run(request, work)

    async def fold(self, request: Request, question: schemas.SequenceQuestion) -> schemas.FoldAnswer:
        """Base pairs of the minimum free energy structure, by ViennaRNA."""
        record = self._record(question)
        pairs, energy = await self.worker.run(request, lambda _: paired(record))
        return schemas.FoldAnswer(pairs=pairs, energy=energy)

    async def edit(self, request: Request, question: schemas.EditQuestion) -> schemas.EditAnswer:
        """What an edit does to read-outs and features."""
        before, after = self._record(question.before), self._record(question.after)
        return await self.worker.run(
            request,
            lambda _: answers.of_edit(self.session, edit(self.session, before, after, question.most)),
        )

    async def saturation(
        self, request: Request, question: schemas.SaturationQuestion
    ) -> schemas.SaturationAnswer:
        """Effect of every single substitution on the read-outs, and on a feature."""
        record = self._record(question.sequence)
        self.limits.check_saturation(record, question.first, question.last)
        feature = None if question.feature is None else self.session.feature(question.feature)

        def work(check: Check) -> schemas.SaturationAnswer:
            found = saturation(
                self.session,
                record,
                feature=feature,
                first=question.first,
                last=question.last,
                check=check,
            )
            return answers.of_saturation(record, found)

        return await self.worker.run(request, work)

    async def intervene(
        self, request: Request, question: schemas.InterventionQuestion
    ) -> schemas.InterventionAnswer:
        """Set a feature, run the model on, and make the same change in random and in similar directions."""
        record = self._record(question.sequence)
        self.limits.check_intervention(record)
        feature = self.session.feature(question.feature)
        source = None if question.source is None else self._record(question.source)
        setting = Setting(question.to, question.value, source, question.first, question.last)
        return await self.worker.run(
            request,
            lambda check: answers.of_intervention(
                record,
                feature,
                intervene(self.session, record, feature, setting, seed=question.seed, check=check),
            ),
        )

    async def values(self, request: Request, question: schemas.ValuesQuestion) -> schemas.ValuesAnswer:
        """Read-outs of many sequences."""
        records = [_read(one) for one in question.sequences]
        self.limits.check(*records)

        def work(check: Check) -> schemas.ValuesAnswer:
            found: dict[str, list[float]] = {name: [] for name in self.session.read_outs}
            for record in records:
                check()
                for name, value in self.session.values(self.session.read(record)).items():
                    found[name].append(value)
            return schemas.ValuesAnswer(values=found)

        return await self.worker.run(request, work)

    async def contrast(self, request: Request, question: schemas.ContrastQuestion) -> schemas.ContrastAnswer:
        """Features that are active in one set of sequences and silent in another, with a test."""
        here, there = ([_read(one) for one in side] for side in (question.here, question.there))
        if here or there:
            self.limits.check(*here, *there)
        return await self.worker.run(
            request,
            lambda check: answers.of_contrast(
                contrast(self.session, here, there, check), len(here), len(there), question.most
            ),
        )

    def _record(self, question: schemas.SequenceQuestion) -> Record:
        record = _read(question)
        self.limits.check(record)
        return record


def create_app(
    session: Session,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    hosts: tuple[str, ...] = (),
    run_pages: Path | None = None,
) -> FastAPI:
    """The explorer as an ASGI application.

    Parameters
    ----------
    session : Session
    limits : Limits, optional
    token : str, optional
        What every request has to show.
    hosts : tuple of str
        Names by which requests may call this host; any when empty.
    run_pages : Path, optional
        A folder with ``report.html`` and ``atlas/`` of the same run, served beside the explorer.
    """
    limits = limits or Limits()
    api = Api(session, limits, run_pages)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        api.worker.close()

    app = FastAPI(
        title="Helix SAE explorer",
        summary="Ask a model and its sparse features about any mRNA sequence.",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,  # they fetch scripts from elsewhere
        redoc_url=None,
        lifespan=life,
    )
    api.add_routes(app)
    for kind in (HelixSaeError, RequestValidationError, ClientGoneError, HTTPException, Exception):
        app.add_exception_handler(kind, _told)
    if run_pages is not None:
        _add_atlas(app, run_pages / "atlas" / "index.html")
        for name in _OF_A_RUN:
            if (run_pages / name).is_dir():
                app.mount(f"/{name}", StaticFiles(directory=run_pages / name, html=True))
        report = run_pages / "report.html"
        if report.is_file():
            app.add_api_route("/report.html", lambda: FileResponse(report), include_in_schema=False)
    app.add_api_route("/static/house.css", lambda: FileResponse(_HOUSE_STYLE), include_in_schema=False)
    app.mount("/static", StaticFiles(directory=SITE / "static"))
    app.add_api_route("/", lambda: FileResponse(SITE / "index.html"), include_in_schema=False)
    app.add_middleware(Guard, limits=limits, token=token, hosts=hosts)
    return app


def _add_atlas(app: FastAPI, index: Path) -> None:
    """The page of the atlas, told that the explorer is there: its cards then link to it."""
    if not index.is_file():
        return

    def page() -> Response:
        text = index.read_text(encoding="utf-8")
        return HTMLResponse(text.replace("<html ", '<html data-explorer="/" ', 1))

    for path in ("/atlas/", "/atlas/index.html"):
        app.add_api_route(path, page, include_in_schema=False)


def _read(question: schemas.SequenceQuestion) -> Record:
    return make_record(
        question.sequence, name=question.name, cds_start=question.cds_start, rule=question.start
    )


async def _told(_: Request, error: Exception) -> Response:
    """Every error as one sentence in JSON."""
    if isinstance(error, ClientGoneError):
        return Response(status_code=499)
    if isinstance(error, RequestValidationError):
        return JSONResponse({"error": _in_words(error)}, status_code=422)
    if isinstance(error, HTTPException):
        return JSONResponse({"error": str(error.detail)}, status_code=error.status_code)
    if not isinstance(error, HelixSaeError):
        told = "Something went wrong in the server; what it printed says more."
        return JSONResponse({"error": told}, status_code=500)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
    more = {"Retry-After": "2"} if status == 503 else None
    return JSONResponse({"error": str(error)}, status_code=status, headers=more)


def _in_words(error: RequestValidationError) -> str:
    told: list[str] = []
    for one in error.errors()[:5]:
        place = ".".join(str(part) for part in one["loc"] if part != "body")
        told.append(f"{place[:120] or 'the request'}: {one['msg'][:200]}")
    return "; ".join(told)
