# SPDX-License-Identifier: BSD-2-Clause
"""How a matrix-vector product is folded, one step a cycle or one every `share`:
`for nf: for weight plane: for sf: for plane group`.

The one place for these counts: the circuit's configuration and the plan's record both have them.
"""

__all__ = ["Folding", "divisors"]


def divisors(number: int) -> list[int]:
    """Widths that cut a vector of so many elements into whole beats, ascending."""
    return [width for width in range(1, number + 1) if number % width == 0]


class Folding:
    """Fold counts of a `rows x columns` product worked on `pe x simd x pl` at a time.

    planes: of a weight, each a matrix of ±1. share: cycles a step, where the weights' memory gives
    its words to several layers in turn.
    """

    rows: int
    columns: int
    input_bits: int
    pe: int
    simd: int
    pl: int
    planes: int = 1
    share: int = 1

    @property
    def nf(self) -> int:
        """Row folds."""
        return -(-self.rows // self.pe)

    @property
    def sf(self) -> int:
        """Column folds."""
        return -(-self.columns // self.simd)

    @property
    def groups(self) -> int:
        """Input-plane groups."""
        return -(-self.input_bits // self.pl)

    @property
    def fold_cycles(self) -> int:
        """Engine cycles per vector."""
        return self.nf * self.sf * self.groups * self.planes * self.share
