"""The pictures say of the methods what is so: what is learned, and that the gradient gets there."""
import pytest

from minipsync.evaluation.benchmark import benchmark
from minipsync.notebook import architecture as module
from minipsync.notebook.architecture import DRAWINGS, architecture

# parameters by the box that shows them
OF = {"ctx": ("learner.ctx", "learner.compound_prompts_text"), "h": ("learner.meta_net",),
      "couple": ("learner.proj", "learner.compound_prompt_projections")}


@pytest.mark.parametrize("name", DRAWINGS)
def test_what_is_learned(name):
    bench = benchmark("mini")
    method = bench.build(name, bench.dataset("v2"), load=False)
    learned = [key for key, value in method.named_parameters() if value.requires_grad]
    boxes = {box for box, starts in OF.items() for key in learned if key.startswith(starts)}
    assert boxes == {key for key, box in DRAWINGS[name].shown.items() if box.kind == "learned"}
    assert all(key.startswith(tuple(start for box in boxes for start in OF[box])) for key in learned)


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_gradient_goes_from_the_losses_to_what_is_learned(name):
    drawing = DRAWINGS[name]
    assert set(drawing.back) <= set(drawing.forward) and len(set(drawing.forward)) == len(drawing.forward)
    reached = {key for key, box in drawing.shown.items() if box.kind == "loss"}
    while new := {a for a, b in drawing.back if b in reached} - reached:
        reached |= new
    assert {key for key, box in drawing.shown.items() if box.kind == "learned"} <= reached
    assert {key for pair in drawing.back for key in pair} <= reached
    assert ("image" in reached) == (name in ("maple", "promptalign", "promptsync"))


@pytest.mark.parametrize("name", DRAWINGS)
def test_boxes_lie_apart_within_the_picture(name):
    boxes = list(DRAWINGS[name].shown.values())
    axis = architecture(name).figure.axes[0]
    for i, a in enumerate(boxes):
        assert axis.get_xlim()[0] <= a.x - a.width / 2 and a.x + a.width / 2 <= axis.get_xlim()[1]
        assert axis.get_ylim()[0] <= a.y - module.HEIGHT / 2 and a.y + module.HEIGHT / 2 <= axis.get_ylim()[1]
        for b in boxes[:i]:
            assert (abs(a.x - b.x) >= (a.width + b.width) / 2) or abs(a.y - b.y) >= module.HEIGHT


def test_in_words_and_unknown():
    alt = architecture("maple").alt
    assert "Learned: text prompts P_l of layers 1 … J; couplings F_l. Frozen: word embedding;" in alt
    assert "image prompts P tilde_l = F_l(P_l)" in alt and "\\" not in alt and "$" not in alt
    assert "Learned: nothing." in architecture("zero_shot").alt
    with pytest.raises(ValueError, match=r"^method='mapel': expected one of zero_shot, .*mean 'maple'\?"):
        architecture("mapel")
