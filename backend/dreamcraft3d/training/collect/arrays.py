"""The array type of this package; shapes and kinds are written with jaxtyping: Float[Array, "V 3"]."""

from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
