"""Reading data: ``read("patients.csv", label="outcome", client="hospital")``."""

from fedtrain.data.readers.read import FORMATS, from_dataframe, read, read_table

__all__ = ["FORMATS", "from_dataframe", "read", "read_table"]
