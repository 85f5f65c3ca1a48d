from __future__ import annotations

import onnx

from bocr_onnx.groups import build_index
from bocr_onnx.groups.rules import find_rule, known_operators
from tests.oracle import build, check, reasons, widths


def test_a_rule_is_found_by_domain_operator_and_opset() -> None:
    assert find_rule("", "Conv", 1) is find_rule("", "Conv", 22)
    assert find_rule("", "Conv", 1) is not None
    assert find_rule("", "Add", 6) is None
    assert find_rule("", "Add", 7) is not None
    assert find_rule("com.microsoft", "Conv", 1) is None
    assert ("", "ConvTranspose") in known_operators()


def test_every_standard_operator_has_a_rule_or_a_refusal_of_its_own() -> None:
    standard = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert standard - {op for domain, op in known_operators() if not domain} == {"Constant"}


def test_what_has_no_rule_is_refused_and_the_rest_is_cut() -> None:
    graph = build(
        """<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>
        m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y, float[N, 6, 4, 4] z) {
            c = Conv(x, W)
            z = acme.Mix(c)
            d = Conv(x, U)
            y = Conv(d, V)
        }""",
        W=(6, 3, 1, 1),
        U=(5, 3, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = build_index(graph)
    assert widths(index) == {"Conv_2": 5}
    assert reasons(index)["Mix_1"] == "operator acme.Mix has no rule"


def test_what_is_refused_by_name_is_and_the_rest_is_cut() -> None:
    graph = build(
        """m (float[N, 3, 4, 4] x, float[N] k) => (float[N, 2, 4, 4] y, float[A, 6, 4, 4] z) {
            c = Conv(x, W)
            b = Cast <to = 9> (k)
            z = Compress <axis = 0> (c, b)
            d = Conv(x, U)
            y = Conv(d, V)
        }""",
        W=(6, 3, 1, 1),
        U=(5, 3, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = check(graph)
    assert widths(index) == {"Conv_3": 5}
    assert "Compress_2" in reasons(index)
