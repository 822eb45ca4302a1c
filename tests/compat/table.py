"""The table of differences in docs/COMPATIBILITY.md, and which of its rows explains a difference.

A row says: route, method, condition, what, Thalamus 0.9.18, Thalamus 0.9.4, here, why. `any` in the first three
stands for all; several routes or methods are separated by commas. A condition is a list of labels, all of which the case
has; one of several, separated by `or`. In the cells of the servers `*` stands for any text, `or` separates several
texts, and `same` says that this version does not differ.
"""
import re
from dataclasses import dataclass, field

COLUMNS = ("Route", "Method", "Condition", "What", "0.9.18", "0.9.4", "Here", "Why")
VERSIONS = ("0.9.18", "0.9.4")


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


def matches(cell, text):
    return any(re.fullmatch(".*".join(re.escape(part) for part in option.split("*")), text, re.DOTALL)
               for option in cell.split(" or "))


@dataclass
class Row:
    line: int
    cells: dict
    #: How many differences it explained, by version.
    used: dict = field(default_factory=lambda: dict.fromkeys(VERSIONS, 0))

    def explains(self, difference):
        case, cells = difference.case, self.cells
        if cells[difference.version] in ("same", "–"):
            return False
        for column, value in (("Route", case.route), ("Method", case.method)):
            if cells[column] != "any" and value not in [part.strip() for part in cells[column].split(",")]:
                return False
        if cells["Condition"] != "any":
            for group in cells["Condition"].split(", "):
                if not any(self.has(case, label) for label in group.split(" or ")):
                    return False
        return (matches(cells["What"], difference.what) and matches(cells[difference.version], difference.upstream)
                and matches(cells["Here"], difference.node))

    @staticmethod
    def has(case, label):
        return any(matches(label, known) for known in case.labels)

    def stale(self):
        """The versions of which the row says something that was not seen."""
        return [version for version in VERSIONS if self.cells[version] not in ("same", "–") and not self.used[version]]

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
        if row.explains(difference):
            row.used[difference.version] += 1
            return True
    return False
