"""The table of differences in docs/COMPATIBILITY.md, and which of its rows explains a difference.

A row says: route, method, condition, what, Thalamus 0.9.18, Thalamus 0.9.4, here, why. `any` in the first three stands
for all; several routes or methods are separated by commas. A condition is a list of labels, all of which the case has;
one of several, separated by `or`. In the cells of the servers `*` stands for any text, `or` separates several texts, and
`same` or `–` says that this version does not differ. Each alternative in each cell must be seen, or it is stale.
"""
import re
from dataclasses import dataclass, field

COLUMNS = ("Route", "Method", "Condition", "What", "0.9.18", "0.9.4", "Here", "Why")
VERSIONS = ("0.9.18", "0.9.4")
#: Cells of versions about which the row says nothing.
NOTHING = ("same", "–")


@dataclass
class Difference:
    """Something that one version of Thalamus and the node answer differently."""
    version: str
    case: object
    what: str
    upstream: str
    node: str

    def __str__(self):
        return f"{self.case.title()}: {self.what}: {self.version} {self.upstream!r}, here {self.node!r}"


def options_of(column, cell):
    """The alternatives of a cell. Those of a condition stand in groups, of which each must hold."""
    if column in ("Route", "Method"):
        return [[part.strip() for part in cell.split(",")]]
    return [group.split(" or ") for group in (cell.split(", ") if column == "Condition" else [cell])]


def is_like(option, text):
    if "*" not in option:
        return option == text
    return re.fullmatch(".*".join(re.escape(part) for part in option.split("*")), text, re.DOTALL) is not None


@dataclass
class Row:
    line: int
    cells: dict
    #: How many differences it explained, by version.
    used: dict = field(default_factory=lambda: dict.fromkeys(VERSIONS, 0))
    #: Alternatives of its cells, as (column, text), that a difference had.
    seen: set = field(default_factory=set)

    def explains(self, difference):
        """Returns the alternatives that hold, or None if the row says nothing about this difference."""
        held = self.is_about(difference)
        here = held is not None and self.holding({"Here": [difference.node]})
        return held | here if here else None

    def is_about(self, difference):
        """As `explains`, whatever the node answers."""
        case = difference.case
        if self.cells[difference.version] in NOTHING:
            return None
        return self.holding({"Route": [case.route], "Method": [case.method], "What": [difference.what],
                             difference.version: [difference.upstream], "Condition": case.labels})

    def holding(self, texts):
        """The alternatives that hold of these cells, or None if one has none. `texts`: what may stand there, by column."""
        held = set()
        for column, known in texts.items():
            for options in options_of(column, self.cells[column]):
                found = [option for option in options if option == "any" or any(is_like(option, text) for text in known)]
                if not found:
                    return None
                held |= {(column, option) for option in found}
        return held

    def stale(self):
        """What the row says and was not seen, as (column, text)."""
        columns = ["Route", "Method", "Condition", "What", "Here", *(v for v in VERSIONS if self.cells[v] not in NOTHING)]
        return [(column, option) for column in columns for options in options_of(column, self.cells[column])
                for option in options if (column, option) not in self.seen]

    def __str__(self):
        return " | ".join(self.cells[column] for column in COLUMNS[:-1])


def read_rows(path):
    """Reads every table of the document that has these columns."""
    rows, is_inside = [], False
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            # A bar inside of a cell is written \|.
            cells = [cell.strip().replace("\\|", "|").replace("`", "")
                     for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
            if cells == list(COLUMNS):
                is_inside = True
            elif is_inside and not line.startswith("|"):
                is_inside = False
            elif is_inside and not set(line.strip()) <= set("|-: "):
                if len(cells) != len(COLUMNS) or not all(cells):
                    raise ValueError(f"{path}:{number}: a row has {len(COLUMNS)} cells, and none is empty")
                rows.append(Row(number, dict(zip(COLUMNS, cells))))
    return rows


def explain(rows, difference):
    """Counts the difference for the first row that explains it. Returns whether there is one."""
    for row in rows:
        held = row.explains(difference)
        if held is not None:
            row.used[difference.version] += 1
            row.seen |= held
            return True
    return False
