"""The arguments of commands that a language model can have a say in."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csp.runtime.fusion import Fusion


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lm", type=Path, metavar="FILE", help="a language model that has a say, or its run directory")
    parser.add_argument("--lm-weight", type=float, metavar="W", help="of it; 0.3 by default; csp tune finds both")
    parser.add_argument("--lm-bonus", type=float, metavar="B", help="for each label; 0 by default")
    parser.add_argument("--rescore", action="store_true", help="among the best hypotheses only, once all is heard")


def fusion(options: argparse.Namespace) -> "Fusion | None":
    said = {"weight": options.lm_weight, "bonus": options.lm_bonus}
    told = {name: value for name, value in said.items() if value is not None}
    if options.lm is None:
        if options.rescore or told:
            raise ValueError("--lm-weight, --lm-bonus and --rescore are for a language model: name one, --lm FILE")
        return None
    from csp.runtime.fusion import Fusion
    from csp.runtime.lm import LanguageModel
    from csp.runtime.model import file_of

    return Fusion(LanguageModel(file_of(options.lm)), rescore=options.rescore, **told)
