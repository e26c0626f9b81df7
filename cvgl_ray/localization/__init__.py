"""A flight localised on a map: from what a user gives, over cells on disk, to a report; free of ray."""
