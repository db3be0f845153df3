"""The model of the image: put yours here."""

import pandas as pd


def model(frame: pd.DataFrame) -> pd.DataFrame:
    """The mean of each number over the last second."""
    return frame.select_dtypes("number").rolling("1s").mean()
