"""The card of a vector file: the method, its model, where it acts, its strength, and its measured effects."""

from typing import Any, NamedTuple

from lightning_steer.errors import UserError
from lightning_steer.vectors.old_cards import OLD_FORMAT, renamed

FORMAT = 2
"""Version of the format: raised whenever a reader of this version could misread the file."""
LARGEST = 3e38
"""Largest number that float32 can hold."""
PARTS = ("block", "attention", "mlp", "heads")


class Site(NamedTuple):
    """A place in the model, in terms that do not depend on the family, and by the model's own name."""

    layer: int | None
    """Decoder block, counted from 0; None in a network that is not a decoder."""
    part: str
    """``block`` (the residual stream), or the output of the block's ``attention``, ``mlp`` or ``heads``."""
    module: str
    """The submodule's name; empty if it is unknown without the model."""
    width: int


class Model(NamedTuple):
    """Identity of a model by its content; None where unknown."""

    name: str
    family: str
    """transformers' ``model_type``."""
    configuration: str | None
    """sha256 of what distinguishes its configuration from the family's defaults."""
    weights: str | None
    """sha256 of its safetensors files."""
    memory: str | None
    """sha256 of all weights as they were in memory."""
    precision: str | None
    """Data type of the weights in memory, for example ``float32``."""
    tokenizer: str | None
    """sha256 of vocabulary and rules."""


class Strength(NamedTuple):
    """The strength that was chosen, and its unit."""

    value: float
    units: str
    low: float | None = None
    high: float | None = None
    n: int | None = None
    """Number of rows that it was chosen on."""


class Card(NamedTuple):
    """The whole card. Values that were not measured are empty or None."""

    method: str
    """The method's class, or ``ImportedVector`` for a vector from another tool."""
    settings: dict[str, Any]
    """The method's arguments except the width."""
    sites: list[Site]
    strength: Strength
    positions: dict[str, Any]
    """The tokens that are steered: ``{"name": "TokensFrom", "offset": -1}``."""
    model: Model | None = None
    task: str = ""
    data: str | None = None
    """sha256 of the rows that the method was fitted to."""
    selection: str | None = None
    """sha256 of the rows that the strength was chosen on."""
    effect: dict[str, Any] = {}  # noqa: RUF012  # never written to
    """``{measure: {"value", "low", "high", "n"}}`` on held-out rows."""
    drift: dict[str, Any] = {}  # noqa: RUF012
    """The same for measures that should not change."""
    certificate: dict[str, Any] | None = None
    warnings: list[str] = []  # noqa: RUF012
    licence: str = "unspecified"
    """Licence of the vector; those of the model and of the fitting data still apply."""
    versions: dict[str, str] = {}  # noqa: RUF012
    source: str = ""
    """The file it was imported from."""
    chat: bool | None = None
    """Whether prompts were put into the model's chat template; None if unknown."""

    def as_plain(self) -> dict[str, Any]:
        """Return the card as plain JSON values."""
        sites = [site._asdict() for site in self.sites]
        model = None if self.model is None else self.model._asdict()
        return {"format": FORMAT, **self._asdict(), "sites": sites, "strength": self.strength._asdict(), "model": model}


def read(value: Any) -> Card:
    """Return the card from a file's content; raise ValueError naming a wrong entry."""
    version = _checked(value, dict, "card").get("format")
    if version not in (FORMAT, OLD_FORMAT):
        raise UserError(f"its format is {version!r}, and {FORMAT} is read: update one of the two")
    entries = _entries(renamed(value) if version == OLD_FORMAT else value, "card", Card, {"format"})
    del entries["format"]
    sites = [_site(site) for site in _checked(entries["sites"], list, "sites")]
    if not sites:
        raise UserError("sites is empty")
    places = [site.module if site.layer is None else (site.layer, site.part) for site in sites]
    if len(set(places)) < len(places):
        raise UserError(f"a place is named twice among the sites {places}, and only one of its maps would be used")
    entries["sites"] = sites
    entries["strength"] = _strength(entries["strength"])
    model = entries.get("model")
    entries["model"] = None if model is None else _model(model)
    for name, kind in (("method", str), ("task", str), ("licence", str), ("source", str)):
        _checked(entries.get(name, ""), kind, name)
    for name in ("settings", "positions", "effect", "drift", "versions"):
        _checked(entries.get(name, {}), dict, name)
    _checked(entries.get("warnings", []), list, "warnings")
    for text in entries.get("warnings", []):
        _checked(text, str, "warnings")
    if entries.get("certificate") is not None:
        _checked(entries["certificate"], dict, "certificate")
    for name, kind in (("data", str), ("selection", str), ("chat", bool)):
        if entries.get(name) is not None:
            _checked(entries[name], kind, name)
    _checked(entries["positions"].get("name"), str, "positions.name")
    return Card(**entries)


def _site(value: Any) -> Site:
    site = Site(**_entries(value, "site", Site))
    if site.layer is not None and not 0 <= _checked(site.layer, int, "site.layer") < 1 << 20:
        raise UserError(f"site.layer is {site.layer}, not a block counted from 0")
    if site.part not in PARTS:
        raise UserError(f"site.part is {site.part!r}, not one of {', '.join(PARTS)}")
    if not 0 < _checked(site.width, int, "site.width") < 1 << 31:
        raise UserError(f"site.width is {site.width}, not a size")
    _checked(site.module, str, "site.module")
    return site


def _strength(value: Any) -> Strength:
    strength = Strength(**_entries(value, "strength", Strength))
    for name in ("value", "low", "high"):
        number = getattr(strength, name)
        if number is not None or name == "value":
            finite(number, f"strength.{name}")
    _checked(strength.units, str, "strength.units")
    if strength.n is not None:
        _checked(strength.n, int, "strength.n")
    return strength


def _model(value: Any) -> Model:
    model = Model(**_entries(value, "model", Model))
    for name, entry in model._asdict().items():
        if entry is not None or name in ("name", "family"):
            _checked(entry, str, f"model.{name}")
    return model


def _entries(value: Any, kind: str, record: Any, extra: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    """Return the entries of a record; raise ValueError for unknown or missing ones."""
    _checked(value, dict, kind)
    unknown = value.keys() - set(record._fields) - extra
    lacking = set(record._fields) - record._field_defaults.keys() - value.keys()
    if unknown or lacking:
        problems = ", ".join(
            [*(f"{name!r} is unknown" for name in sorted(unknown)), *(f"{n!r} lacks" for n in sorted(lacking))]
        )
        raise UserError(f"the {kind} has other entries: {problems}")
    return dict(value)


def finite(value: Any, name: str) -> float:
    """Return a number from an external file; raise ValueError on anything else, and on numbers beyond float32."""
    number = _checked(value, (int, float), name)
    if not abs(number) <= LARGEST:
        raise UserError(f"{name} is {str(number)[:40]}, not a finite number")
    return float(number)


def _checked(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise UserError(f"{name} is {str(value)[:60]!r}, not of type {' or '.join(k.__name__ for k in kinds)}")
    return value
