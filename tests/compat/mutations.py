"""Whether the table would hide a fault: what the node takes today is answered with an error, and no row may explain that.

The answers are those of the run. So a row is as narrow as the cases that the node takes demand: `roles: *` would explain a
refusal of every role, also of those that everybody may have.
"""
import table

#: What a fault could answer in the place of a success.
REFUSALS = ("400", "401", "403", "404", "405", "409", "412", "413", "415", "422", "429", "500", "503")
#: The same for a list of records: they are gone.
NOTHING_LISTED = "200 empty list"


def hidden(rows, version, case, upstream, ours):
    """Yields (row, refusal) for each refusal that a row would explain, if the node takes this case.

    `upstream` and `ours` are summaries of answers.
    """
    if not ours.startswith("2"):
        return
    refusals = REFUSALS + ((NOTHING_LISTED,) if ours == "200 list of records" else ())
    of_case = table.Difference(version, case, "answer", upstream, ours)
    for row in rows:
        if row.is_about(of_case) is not None:
            yield from ((row, refusal) for refusal in refusals if row.holding({"Here": [refusal]}))
