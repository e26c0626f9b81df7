"""Which images exist and where, never their pixels: `layouts.scan` makes a `table.Catalog` of a data set."""
