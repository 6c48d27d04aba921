"""The options of the commands for tabular networks. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fairmend.cli.options import WorkerOptions, of
from fairmend.settings import setting
from fairmend.tabular.names import PRESET_NAMES
from fairmend.tabular.repair.settings import RepairSettings

_OWN = "Your own table"
_GRID = "Grid (lists, every combination is repaired)"

SEARCHED = of(RepairSettings, "search", "states", "seconds", "restarts", "chains", "search_on", panel="Search")
LIMITED = of(
    RepairSettings,
    *("objective", "utility", "keep", "penalty", "min_drop", "max_drop", "drop", "threshold"),
    panel="What a repair may do",
)
GRID = of(RepairSettings, "keep", "penalty", "max_drop", "states", panel=_GRID, several=True)


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Where the network and the data come from."""

    PANEL: ClassVar[str] = "Model and data"

    preset: str | None = setting(
        None,
        f"A published benchmark: {', '.join(PRESET_NAMES)}. Brings its data (fetched once into the cache), encoding, "
        "groups and size limits; without --model also a small network of its published widths, which is trained here "
        "in seconds and kept in the cache.",
        basic=True,
    )
    model: Path | None = setting(
        None,
        "The trained network: a .safetensors of a plain MLP (NAME.weight and NAME.bias, layers in order) or an .onnx "
        "MLP. Pickles (.pt, .pkl) are refused.",
        kind=Path,
        metavar="FILE",
        basic=True,
    )
    data: Path | None = setting(
        None,
        "The table: .csv, .tsv or .txt (also .gz), .parquet, or .npz with X and y. With --preset a file in one of its "
        "public layouts, or a folder that holds it; left out, it comes from the cache or is fetched.",
        kind=Path,
        metavar="PATH",
        basic=True,
    )
    activation: str | None = setting(
        None,
        "Activation of the hidden layers of a .safetensors network whose file does not name it: relu, leaky_relu(0.2), "
        "gelu, silu, tanh, sigmoid, elu; one for all layers or one each. Default: relu, and the output says that it "
        "was assumed.",
        metavar="NAME[,NAME]",
    )
    split_seed: int = setting(
        42,
        "Seed of the random split into 60 % train, 20 % validation and 20 % test; also of the training of a preset's "
        "own network.",
    )
    label: str | None = setting(None, "The column that the network predicts.", metavar="COLUMN", panel=_OWN, basic=True)
    sensitive: str | None = setting(
        None,
        "The column that makes the groups; several are crossed (sex,race gives sex=F & race=Black, ...). A name with a "
        "comma is taken as it is if a column has exactly that name; in a list put it in double quotes, as CSV does.",
        metavar="COLUMN[,COLUMN]",
        panel=_OWN,
        basic=True,
    )
    positive: str | None = setting(
        None,
        "The value of the label that is the positive class, class 1. Default: the larger of two numbers, or the one "
        "that plainly means yes; the output says which was taken.",
        metavar="VALUE",
        panel=_OWN,
    )
    split_column: str | None = setting(
        None,
        "A column with the values train, validation and test, instead of a random split.",
        metavar="COLUMN",
        panel=_OWN,
    )
    features: str | None = setting(
        None,
        "The columns that the network takes, in its order. Default: all but the label and the split column, in the "
        "order of the file (of an .npz: the columns of X), without index levels and columns that have no name. Names "
        "with commas as for --sensitive.",
        metavar="COLUMN[,COLUMN]",
        panel=_OWN,
    )
    drop_sensitive: bool = setting(
        False, "The network does not take the sensitive columns: leave them out of its inputs.", panel=_OWN
    )
    encode: str = setting(
        "none",
        "none: every feature is the number it is, because a finished network expects ready inputs. standard: one-hot "
        "text (first level left out) and standardise numbers on the train split; right only if the network was trained "
        "on exactly that.",
        metavar="none|standard",
        panel=_OWN,
    )


@dataclass(frozen=True, kw_only=True)
class StudyOptions(WorkerOptions):
    """Where the repairs of a study are kept, and who makes them."""

    PANEL: ClassVar[str] = "Study"

    out: Path | None = setting(
        None,
        "Folder for tables, pictures and a store of the repairs, each kept as it finishes: the same command again goes "
        "on where it stopped. Default: ./fairmend-COMMAND, with the data's name.",
        kind=Path,
        metavar="DIR",
        basic=True,
    )
