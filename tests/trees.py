"""Small trees of empty files in a published data set's layout."""


def touch(root, *names):
    """Empty files below a folder, whose path it gives back."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(root)


def splits(catalog):
    """The split of each image by its id."""
    return dict(zip(catalog.image_ids, catalog.rows["split"].to_pylist(), strict=True))


def coordinates(catalog):
    """The coordinates of those images that have any, by id."""
    rows = catalog.rows.to_pylist()
    return {
        row["image_id"]: (row["latitude"], row["longitude"]) for row in rows if row["latitude"] is not None
    }
