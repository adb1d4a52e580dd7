"""What is wrong with the data: one line that names the file or the line, and the cure."""


class DataError(ValueError):
    """A manifest, a recording or a transcript that cannot be used."""
