"""What is said of a file that cannot be trusted?"""


class FormatError(ValueError):
    """A file that is damaged, hostile or of another kind. One line: the file, the tensor, the defect."""
