"""What all sections of the configuration have in common."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Auto = Literal["auto"]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys refused.

    What a key means stands beneath it in the code, from where the documentation takes it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
