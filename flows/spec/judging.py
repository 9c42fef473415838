"""The part of a spec that says how the result is judged."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from flows.spec.fields import Dose, Doses, Part, Positive, Text, Texts, distinct

Arm = Literal[
    "unsteered", "transplanted", "own", "random", "shuffled_map", "wrong_concept", "opposite", "prompt", "paper"
]
Arms = Annotated[list[Arm], Field(min_length=1), AfterValidator(distinct)]
Beside = Literal["perplexity", "samples", "stability", "capability"]


class Validate(Part):
    """What the transplant is compared with, and on how many items.

    Attributes:
        protocol: "emotion" (which of a family's labels does the model name?), "truthfulqa" or "toxicity".
        effect: of emotion, what the arms are judged and doses chosen by: "logit_accuracy", the share of the others'
            scenarios that get the concept's label, or "selectivity", which takes off what any disturbance adds to it
            (see `contrans.validation.emotion.EmotionProtocol.hits`). Both are measured.
        data: the protocol's data set: TruthfulQA's CSV, Toxigen's folder or CSV.
        prompt: of TruthfulQA: "qa_primer" or "paper".
        classifier: of toxicity: a folder or Hub id of a text-classification model.
        arms: directions that are compared; "unsteered" and "transplanted" always are.
        select: how doses are chosen: "effect" on dev, or "kl": the same price for every arm.
        kl_budget: that price, in nats per token on generic text.
        doses: candidate shifts of "effect", in median residual norms.
        curve_kl: whether KL is measured along the curves of "effect" too.
        random_draws: random directions of the arm "random"; 99 or more give a p-value.
        shuffled_draws: maps of the arm "shuffled_map", each of rows in an order of its own; 20 or more give a p-value.
        dev_per_label: items of each label (or group) on dev, of a pair of labels three times as many; null for all.
        test_per_label: items of each label (or group) on test; null for all.
        generic_texts: texts that KL and perplexity are measured on.
        cross_effects: what every concept's transplant does to every other's effect: "none", "singly", or "pairs" for
            two concepts at once too.
        combine: how two concepts are put in at once: a key of `contrans.transplants.compose.COMBINATIONS`.
        also: what is measured beside the protocol at the chosen doses: "perplexity", "samples", "stability",
            "capability"; see `flows.extras` for what each costs.
        prompts: what samples and stability continue; short neutral ones of our own if empty.
        new_tokens: most tokens of a sample.
        long_tokens: most tokens of a text of stability.
        tasks: of capability: tasks, groups or tags of lm-evaluation-harness.
        task_dir: of capability: a folder with task files of your own.
        task_limit: of capability: items of each task at most; null for all.
    """

    protocol: Literal["emotion", "truthfulqa", "toxicity"] = "emotion"
    effect: Literal["logit_accuracy", "selectivity"] = "logit_accuracy"
    data: Text | None = None
    prompt: Literal["qa_primer", "paper"] = "qa_primer"
    classifier: Text | None = None
    arms: Arms = Field(default=["unsteered", "transplanted", "own", "random", "shuffled_map", "wrong_concept", "paper"])
    select: Literal["effect", "kl"] = "effect"
    kl_budget: Dose = 0.1
    doses: Doses = Field(default=[0.1, 0.15, 0.2, 0.3])
    curve_kl: bool = False
    random_draws: Positive = 20
    shuffled_draws: Positive = 3
    dev_per_label: Positive | None = 8
    test_per_label: Positive | None = 25
    generic_texts: Positive = 8
    cross_effects: Literal["none", "singly", "pairs"] = "none"
    combine: Literal["sum", "loewdin", "gram_schmidt", "solve"] = "sum"
    also: Annotated[list[Beside], AfterValidator(distinct)] = Field(default=[])
    prompts: Texts = Field(default=[])
    new_tokens: Positive = 40
    long_tokens: Positive = 512
    tasks: Texts = Field(default=[])
    task_dir: Text | None = None
    task_limit: Positive | None = None

    @field_validator("arms")
    @classmethod
    def _needed_arms(cls, arms: list[str]) -> list[str]:
        missing = [arm for arm in ("unsteered", "transplanted") if arm not in arms]
        if missing:
            raise ValueError(f"must contain {missing[0]}: without it there is nothing to compare")
        return arms

    @model_validator(mode="after")
    def _what_the_protocol_needs(self) -> Self:
        if self.protocol != "emotion" and self.data is None:
            raise ValueError(f"needs the data of {self.protocol}; set data to its file or folder")
        if self.protocol == "toxicity" and self.classifier is None:
            raise ValueError("needs a classifier for toxicity; name a text-classification model")
        if "capability" in self.also and not self.tasks:
            raise ValueError("needs tasks for capability; name at least one, such as tasks: [arc_easy]")
        return self
