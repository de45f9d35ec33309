"""The part of a report that shows images: those that the network is most wrong about."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitcli.data.contact_sheet import Cell, contact_sheet
from vitcli.evaluators.answers import ImageAnswers
from vitcli.report.markup import Content, Html, many, tag
from vitcli.report.page import Section, grid, picture

#: images of the gallery; each has two pictures where there is a heat map
NUM_WORST = 18


@dataclass(frozen=True)
class Pictured:
    """An image as the network sees it, and where it looks; None: that cannot be said."""

    image: Image.Image
    heat: Image.Image | None


#: image indices -> what is shown of each; None: the image cannot be read
Look = Callable[[Sequence[int]], list[Pictured | None]]
#: what is said, of which class, and with what probability if it has one
Line = tuple[Content, str, float | None]


def worst_images(answers: ImageAnswers, most: int = NUM_WORST) -> list[int]:
    """The wrong answers with the largest losses, largest first; equal ones in the order of the images."""
    wrong = np.flatnonzero(~answers.correct)
    order = np.argsort(-answers.losses[wrong], kind="stable")[:most]
    return wrong[order].tolist()


def worst_page(answers: ImageAnswers, look: Look, most: int = 12) -> Image.Image | None:
    """The worst images on a page of rows of four, for programs that take pictures; None: there is none to show."""
    worst = worst_images(answers, most)
    names = answers.class_names
    cells = [
        Cell((one.image,), f"{names[answers.targets[index]]}, taken for {names[answers.predicted[index]]}")
        for index, one in zip(worst, look(worst), strict=True)
        if one is not None
    ]
    width = min(len(cells), 4)
    if not width:
        return None
    rows = [cells[start : start + width] for start in range(0, len(cells) - width + 1, width)]
    return contact_sheet("worst images", "wrong answers with the largest loss", [""] * width, rows)


def mistakes_section(answers: ImageAnswers, look: Look) -> Section:
    """The images with the largest losses, with true and predicted class, probabilities and heat map."""
    worst = worst_images(answers)
    section = Section("Worst images")
    if not worst:
        section.lead = "All images are classified correctly."
        return section
    shown = look(worst)
    section.lead = (
        "Wrong answers with the largest loss, worst first: hard images, or labels that are wrong. "
        + "The second picture shows what the answer is based on. " * any(one and one.heat for one in shown)
        + "Probabilities are those of the predicted and of the true class."
    )
    cards = [_card(answers, index, one) for index, one in zip(worst, shown, strict=True)]
    section.parts.append(grid(cards, "gallery"))
    return section


def _card(answers: ImageAnswers, index: int, shown: Pictured | None) -> Html:
    names = answers.class_names
    predicted, true = names[answers.predicted[index]], names[answers.targets[index]]
    lines = [
        ("predicted", predicted, float(answers.confidence[index])),
        ("true", true, float(answers.target_probability[index])),
    ]
    return card(answers.names[index], shown, lines, description=f"{true}, taken for {predicted}")


def card(name: str, shown: Pictured | None, lines: Sequence[Line], description: str) -> Html:
    """An image of a gallery, with lines below it. name: its path; description: for those who do not see it."""
    file = name.rpartition("/")[2]
    said = many([tag("span", *(_line(*line) for line in lines), class_="said"), tag("span", file, class_="file")])
    return tag("figure", _pictures(shown, f"{file}: {description}"), tag("figcaption", said))


def _line(what: Content, name: str, probability: float | None) -> Html:
    percent = ""
    if probability is not None:
        digits = 1 if probability >= 0.0995 or probability == 0 else 2
        percent = f"{100 * probability:.{digits}f} %"
    return many([tag("span", what, class_="quiet"), tag("span", name), tag("span", percent)])


def _pictures(shown: Pictured | None, description: str) -> Html:
    if shown is None:
        return tag("p", "The image cannot be read any more.", class_="quiet")
    pictures = [picture(shown.image, description)]
    if shown.heat is not None:
        pictures.append(picture(shown.heat, "what the answer is based on"))
    return tag("div", *pictures, class_="pair" if len(pictures) == 2 else "alone")
