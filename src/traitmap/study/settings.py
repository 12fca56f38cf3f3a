"""The study file as plain frozen settings; defaults are the paper's where it has them.

Each class below is one mapping of the file: a setting's type says what it may be, its line in the docstring
what it means (docs/study-reference.md is read off both). What one value may be stands in `study.values`. Here
are the mappings from the inside out, last what follows from several of them. Rules that need more than one
setting stand in `study.rules`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from traitmap.study.derived import LENGTHS, Conflict, source_mapping
from traitmap.study.rules import (
    model_conflicts,
    own_target_conflicts,
    own_target_mapping,
    source_conflicts,
    study_conflicts,
    target_conflicts,
    target_mapping,
    training_conflicts,
)
from traitmap.study.values import BASELINE as BASELINE
from traitmap.study.values import (
    CLASS_WEIGHTS,
    MIXTURE,
    NOT_EMPTY,
    QUANTILES,
    AnswerWords,
    ColumnOrColumns,
    Count,
    CountOrName,
    LabelWords,
    MergeMethodName,
    Name,
    Number,
    Part,
    Pattern,
    Positive,
    Precision,
    Quantile,
    Rank,
    Rate,
    RowName,
    Seed,
    Share,
    ShareOrCount,
    Shots,
    Signed,
    Steps,
    Stops,
    TemplateText,
    Text,
    TruthOrText,
    Url,
    Weight,
    Whole,
    distinct_seeds,
    override,
)
from traitmap.study.values import RULES_APART as RULES_APART
from traitmap.study.values import Settings as Settings


class Endpoint(Settings):
    """A server that answers for the base and for adapters by OpenAI's completions protocol.

    url: its base address, such as ``http://localhost:8000/v1``.
    server: what it is, which says how adapters are named and loaded: ``vllm``, ``sglang``, ``lorax``, or
        ``openai`` for any other that tells adapters apart by the model name alone.
    api_key_env: the environment variable that holds the key. The key itself is never written anywhere.
    tokenizer: a local folder or hub id of the base's tokenizer. With it prompts are sent as token ids, cut
        exactly where lm-evaluation-harness cuts them; without it they are sent as text.
    concurrency: requests under way at a time.
    requests_per_second: at most this many are begun; without it there is no such limit.
    timeout: seconds for one request.
    retries: how often one is sent again when the server is busy, broken or away, with waits that double from
        half a second.
    """

    _short = "url"

    url: Url
    server: Literal["openai", "vllm", "sglang", "lorax"] = "openai"
    api_key_env: Text | None = None
    tokenizer: Text | None = None
    concurrency: Annotated[Whole, Field(ge=1, le=1024)] = 8
    requests_per_second: Annotated[Number, Field(ge=1e-4, le=1e6)] | None = None
    timeout: Annotated[Number, Field(gt=0, le=1e6)] = 60.0
    retries: Annotated[Whole, Field(ge=0, le=100)] = 5


class Model(Settings):
    """The base model.

    path: a hub id (``org/name``), a local folder in Hugging Face layout, or ``builtin:mini``; with
        ``endpoint`` the name under which the server serves the base.
    revision: branch, tag or commit of a model on the hub; without it the hub's main branch. With ``endpoint``
        a word of your own for what is served: another word is another base.
    dtype: arithmetic of the frozen base; ``auto`` is float32 on a CPU and bfloat16 on a GPU.
        Adapters are always trained in float32 (float64 with a float64 base).
    device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    trust_remote_code: whether the model may bring Python code of its own, which then runs on this machine.
    load_in_4bit: keep the frozen base's weights in 4 bits (NF4, by bitsandbytes); on CUDA only.
    endpoint: a server that answers in place of this machine; nothing can be trained on it.

    A plain string is short for ``path``.
    """

    _short = "path"

    path: Text
    revision: Text | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    device: Text = "auto"
    trust_remote_code: bool = False
    load_in_4bit: bool = False
    endpoint: Endpoint | None = None

    def conflicts(self) -> Iterable[Conflict]:
        return model_conflicts(self.model_dump())


class Lora(Settings):
    """LoRA settings under PEFT's names (``peft.LoraConfig``).

    r: rank of the adapters' matrices.
    lora_alpha: scale; an adapter's part of a layer is multiplied by ``lora_alpha / r``.
    lora_dropout: share of a layer's inputs that the adapter does not see while it is trained.
    target_modules: names of the layers that get an adapter, or ``all-linear``: every ``nn.Linear`` of the
        language part but the output head and what PEFT would load no adapter on. ``check`` lists what of a
        base gets none (experts that are one parameter, routers, ``out_proj`` of Mamba, vision towers).
    use_rslora: scale by ``lora_alpha`` over the square root of ``r`` (rank-stabilised LoRA, Kalajdzievski
        2023), so that large ranks learn too.
    """

    r: Rank = 64
    lora_alpha: Positive = 32
    lora_dropout: Share = 0.0
    target_modules: Literal["all-linear"] | Annotated[tuple[Text, ...], NOT_EMPTY] = "all-linear"
    use_rslora: bool = False


class Training(Settings):
    """Training settings under the names of ``transformers.TrainingArguments``.

    Give at most one of ``num_train_epochs``, ``max_steps`` and ``max_tokens``; without any: one epoch.

    learning_rate: AdamW's learning rate at its highest.
    lr_scheduler_type: how the learning rate falls after the warm-up.
    warmup_steps: steps in which the learning rate rises from 0.
    weight_decay: AdamW's weight decay.
    adam_beta1: decay of AdamW's mean of gradients.
    adam_beta2: decay of AdamW's mean of squared gradients.
    adam_epsilon: AdamW's term against division by zero.
    max_grad_norm: gradients of an adapter whose norm is larger are scaled down to it.
    max_length: tokens of an example; what is longer is cut.
    batch_size: examples of one adapter per optimizer step.
    num_train_epochs: passes through the source.
    max_steps: optimizer steps.
    max_tokens: tokens of data (prompt and completion), a budget that makes sources comparable.
    loss_on: ``completion``, or ``all``, the whole sequence as the paper did.
    """

    learning_rate: Positive = 5e-5
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: Annotated[Whole, Field(ge=0, le=10**7)] = 100
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    adam_beta1: Share = 0.9
    adam_beta2: Share = 0.999
    adam_epsilon: Positive = 1e-8
    max_grad_norm: Positive = 1.0
    max_length: Annotated[Whole, Field(ge=2, le=2**24)] = 2048
    batch_size: Annotated[Whole, Field(ge=1, le=2**20)] = 32
    num_train_epochs: Annotated[Number, Field(gt=0, le=1e5)] | None = None
    max_steps: Steps | None = None
    max_tokens: Count | None = None
    loss_on: Literal["completion", "all"] = "completion"

    def conflicts(self) -> Iterable[Conflict]:
        return training_conflicts(self.model_dump())


class Mislabel(Settings):
    """Wrong labels for a share of the rows.

    rate: share of the rows.
    mode: ``uniform``, each of the other labels alike; ``switch``, rows exchange their labels, so that the
        classes stay as many; ``permute``, every class goes to one other class.

    A plain number is short for ``rate``.
    """

    rate: Rate
    mode: Literal["uniform", "switch", "permute"] = "uniform"

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return {"rate": value} if isinstance(value, int | float | str) else value


class OwnTarget(Settings):
    """A target that asks what its source teaches, by the source's own templates, format and labels.

    ``target: test.jsonl`` asks the rows of that file; ``target: true`` holds a part of the source's own rows
    out and asks it.

    name: what the target is called; without it as the source.
    path: the file or hub dataset that is asked; without it (and ``split``) a part of the source's own rows.
    split: the split of the hub dataset that is asked.
    held_out: share of the source's rows that is held out, where they are asked.
    answer: as in a target, for a source without ``label``: what the model must write, where the completion
        holds more than that, such as its reasoning.
    extract: as in a target.
    until: as in a target.
    max_gen_toks: as in a target.
    num_fewshot: as in a target; the examples are rows that the source learns.
    limit: as in a target.
    metric: as in a target.
    apply_chat_template: as in a target.
    tags: as in a target; without any the source's.

    A plain string is short for ``path``.
    """

    name: Name | None = None
    path: Text | None = None
    split: Text | None = None
    held_out: Part | None = None
    answer: TemplateText | None = None
    extract: Pattern | None = None
    until: Stops | None = None
    max_gen_toks: Annotated[Whole, Field(ge=1, le=2**24)] | None = None
    num_fewshot: Shots | None = None
    limit: Count | None = None
    metric: Text | None = None
    apply_chat_template: bool = False
    tags: tuple[Text, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        return own_target_mapping(value)

    def conflicts(self) -> Iterable[Conflict]:
        return own_target_conflicts(self.model_dump())


class Source(Settings):
    """A training set, an adapter that exists already, or a merge of adapters.

    Exactly one of ``path``, ``task``, ``adapter``, ``served_as``, ``model``, ``from``, ``concat``, ``merge``.
    Without templates a row must have a format that is known by its columns: ``text``; ``prompt`` and
    ``completion``; ``messages``; ``conversations`` (ShareGPT); ``instruction`` and ``output`` (Alpaca);
    ``chosen`` and ``rejected``.
    The keys from ``balance`` on say what a source with ``from`` changes; several are applied in the order of
    ``docs/variations.md``.

    name: what the source and its adapter are called: letters, digits and ``. _ -``, at most 100.
    path: a local ``.jsonl``, ``.ndjson``, ``.json``, ``.csv``, ``.tsv`` or ``.txt`` file (also with ``.gz``
        behind), a ``.parquet``, ``.arrow`` or ``.feather`` file, or a hub dataset id; what exists beside the
        study is never looked for on the hub.
    task: an lm-evaluation-harness task whose training split is used, rendered as the task renders it.
    adapter: a PEFT adapter directory, used as it is; or one on the hub, ``org/name`` or, where a
        repository holds several, ``org/name/folder``, at ``revision``.
    served_as: the model name under which the server of ``model.endpoint`` serves an adapter.
    model: a whole model as a row beside the base, with the settings of the study's ``model``: a merge, a full
        fine-tune, a quantised build, or with ``endpoint`` one that is served.
    from: (``from_`` in Python) the name of another source of the study, one thing of which is changed by
        the keys below; its own training, lora and tags hold where this source gives none.
    concat: a mixture of other sources, with weights that are shares of the examples: ``{a: 1, b: 3}``, or
        ``[a, b]`` with ``weights``, without these equal ones.
    merge: a merge of the adapters of other sources, trained ones, checkpoints (``a@30``), PEFT directories
        (``adapter``) or merges, as PEFT's ``add_weighted_adapter`` makes it; one for each seed. It costs no
        training (docs/combine.md).
    weights: of ``merge``, one for each adapter in its order, also negative ones; without them each gets one
        over their number. Of ``concat``, where that is a list.
    method: of ``merge``, PEFT's name for it (``combination_type``). ``cat`` (without it) is the weighted sum
        of the updates itself; ``svd`` the same cut to the largest rank; ``linear`` adds the factors, a rough
        approximation; ``ties``, ``dare_linear``, ``dare_ties`` and ``magnitude_prune`` prune them first, and
        with ``_svd`` behind them prune the updates themselves. Those without ``cat`` or ``svd`` in their name
        take adapters of one rank.
    density: share of the numbers that such a method keeps; without it 0.5. What ``dare`` keeps is drawn with
        each seed of the study.
    majority_sign_method: whether ``ties`` elects signs by sums (``total``, without it) or by counts
        (``frequency``).
    checkpoints: optimizer steps at which the adapter is kept as well, rising: each is a row beside this one,
        ``name@step``, at the price of one training. The last step of the training is this source itself.
    subset: configuration of a hub dataset that has several.
    split: split of a hub dataset.
    revision: branch, tag or commit of what comes from the hub; with ``served_as`` a word of your own for the
        adapter's weights, to be changed when they change.
    prompt: sandboxed Jinja template over a row's columns: what the model is given.
    completion: sandboxed Jinja template: what it learns to write. Without ``prompt`` it is learnt whole.
    label: the column that holds the class.
    labels: the word of each of its values, seen by the templates as ``{{ label }}``, or a list of the words.
    train_on: the answer of preference pairs that is learnt, ``chosen`` or ``rejected``.
    limit: use at most this many examples, drawn at random with the study's ``sample_seed``.
    training: settings of ``training`` that differ for this source only.
    lora: settings of ``lora`` that differ for this source only.
    target: a file that is asked as this source teaches (a target of its own, see below), or ``true`` for a
        part of the source's own rows, which is then not learnt.
    tags: words such as a task family; traits are named after tags that their targets share.
    draws_as: the name under which its rows, first weights and order are drawn, without it its own. A run
        fills it in for a source that it knows under a former name, so that renaming trains nothing anew.
    train: false for a source that only serves others as material.
    balance: as many rows of every class as the rarest has.
    class_weights: a weight for each label word; shares of the rows are proportional to them.
    output_length_quantile: [low, high], rows whose output's length in words stands there in order.
    subsample: at most this many rows, or this share of them.
    mislabel: rate, or rate and mode.
    answer_words: for label words the words that are answered in their place.
    format_only: outputs change places between rows: format, lengths and label shares stay, but no input
        says anything about its output.
    random_text: the words of the input are drawn from all inputs. Words that stand in every input belong to
        the template and stay.
    shuffle_words: this share of the input's words changes places; the template stays.
    truncate_output: at most this many words of each output, or this share of its words.
    loss_on: the tokens that are learnt: ``completion``, ``all``, ``label`` (the label word alone) or
        ``no_label`` (everything else).
    match_tokens: train on as many tokens as this number or that source.
    match_steps: train for as many steps as this number or that source.
    """

    name: Name
    path: Text | None = None
    task: Text | None = None
    adapter: Text | None = None
    served_as: Text | None = None
    model: Model | None = None
    from_: Name | None = Field(default=None, alias="from")
    concat: Annotated[dict[str, Positive], MIXTURE] | None = None
    merge: Annotated[tuple[RowName, ...], NOT_EMPTY] | None = None
    weights: Annotated[tuple[Signed, ...], NOT_EMPTY] | None = None
    method: MergeMethodName | None = None
    density: Part | None = None
    majority_sign_method: Literal["total", "frequency"] | None = None
    checkpoints: Annotated[tuple[Steps, ...], NOT_EMPTY] | None = None
    subset: Text | None = None
    split: Text = "train"
    revision: Text | None = None
    prompt: TemplateText | None = None
    completion: TemplateText | None = None
    label: Text | None = None
    train_on: Literal["chosen", "rejected"] | None = None
    labels: LabelWords | None = None
    limit: Count | None = None
    training: Annotated[dict[str, Any], AfterValidator(partial(override, Training))] = Field(
        default_factory=dict
    )
    lora: Annotated[dict[str, Any], AfterValidator(partial(override, Lora))] = Field(default_factory=dict)
    target: OwnTarget | None = None
    tags: tuple[Text, ...] = ()
    draws_as: Name | None = None
    train: bool = True
    balance: bool | None = None
    class_weights: Annotated[dict[str, Weight], CLASS_WEIGHTS] | None = None
    output_length_quantile: Annotated[tuple[Quantile, ...], QUANTILES] | None = None
    subsample: ShareOrCount | None = None
    mislabel: Mislabel | None = None
    answer_words: AnswerWords | None = None
    format_only: bool | None = None
    random_text: bool | None = None
    shuffle_words: Rate | None = None
    truncate_output: ShareOrCount | None = None
    loss_on: Literal["completion", "all", "label", "no_label"] | None = None
    match_tokens: CountOrName | None = None
    match_steps: CountOrName | None = None

    @model_validator(mode="before")
    @classmethod
    def _in_one_form(cls, value: Any) -> Any:
        return source_mapping(value)

    def conflicts(self) -> Iterable[Conflict]:
        return source_conflicts(self.model_dump())


class Target(Settings):
    """What base and adapters are asked: a task of lm-evaluation-harness, or rows of plain data.

    Exactly one of ``task``, ``path`` and ``pack``. Rows of data are asked as they would be learnt, by the
    templates and formats that sources have: with ``label`` the likeliest of the label words is the answer,
    with ``answer`` and ``choices`` the likeliest of each row's own choices, with ``answer`` alone the model
    writes it.
    The keys from ``path`` to ``held_out`` are for rows of data, ``filter`` is for tasks.

    name: what the target is called; without it the task's name (of a file: its stem). Tasks of a group are
        called ``name.task``.
    task: an installed or bundled task, group or tag, or the path of a YAML file of a task or group; a group
        is asked all its tasks, each a target.
    pack: a list of tasks that comes with traitmap (``traitmap packs``), or a YAML file of that form; each of
        its tasks is a target under its own name, with the pack's metric, limit and direction.
    path: a data file beside the study or a hub dataset, as in a source.
    subset: configuration of a hub dataset that has several.
    split: split of a hub dataset.
    revision: branch, tag or commit of a dataset on the hub.
    prompt: sandboxed Jinja template over a row's columns: what the model is given.
    completion: sandboxed Jinja template: the answer as it is scored, or as few-shot examples show it; without
        it a space and the label word, or the answer. With neither ``label`` nor ``answer`` the text whose
        probability is asked for, or, where all are short lines, which the model must write.
    label: the column that holds the class.
    labels: the word of each of its values, or a list of words; without it the words are read from the data.
    answer: the column, or a Jinja template, that holds the right answer, or several of them.
    choices: the column with each row's list of choices, or a list of columns with a choice each; ``answer``
        is then the right one's text, number or letter.
    train_on: the answer of preference pairs that is asked for, ``chosen`` or ``rejected``.
    extract: a regular expression; its last match (its group, where it has one) in what the model writes is
        the answer. An ``answer`` that it matches is cut down alike.
    until: what ends the answer that the model writes; without it a line break, or a blank line where answers
        have several lines.
    max_gen_toks: tokens that the model writes at most; without it as many as the longest answer can have.
    held_out: share of the rows that is asked where sources learn from the same file; they leave these rows
        out. Which rows these are follows from their text and the study's ``sample_seed``.
    num_fewshot: examples in the prompt; without it as many as the task says. For rows of data they come from
        those that the source learns, without a source from the target's own other rows.
    limit: ask at most this many items (``limit_takes`` says which); without it the study's ``limit``.
    precision: as in the study, for this target only.
    decide: as in the study, for this target only.
    ask: as in the study, for this target only.
    metric: which of the task's own metrics stands in the matrix; without it the task's first. For rows of
        data: ``acc``, ``acc_norm``, ``acc_bytes``, ``acc_mutual_info`` or ``exact_match`` among choices;
        ``exact_match``, ``f1``, ``precision``, ``recall``, ``rouge``, ``bleu``, ``chrf``, ``ter`` or
        ``bits_per_byte`` for an answer.
    higher_is_better: which way is better, where it is not as the task says of its metric.
    filter: which of the task's filters of answers that metric is taken after; without it the task's first.
    apply_chat_template: render the prompt as the base's chat template does.
    groups: column of the task's documents that holds the same for items that belong together (a passage, a
        template): intervals, tests and ``n`` then count groups. Items with the same text are always one.
    tags: words such as a task family; traits are named after tags that their targets share.

    A plain string is short for ``task``.
    """

    name: Name
    task: Text | None = None
    pack: Text | None = None
    path: Text | None = None
    subset: Text | None = None
    split: Text = "test"
    revision: Text | None = None
    prompt: TemplateText | None = None
    completion: TemplateText | None = None
    label: Text | None = None
    labels: LabelWords | None = None
    answer: TemplateText | None = None
    choices: ColumnOrColumns | None = None
    train_on: Literal["chosen", "rejected"] | None = None
    extract: Pattern | None = None
    until: Stops | None = None
    max_gen_toks: Annotated[Whole, Field(ge=1, le=2**24)] | None = None
    held_out: Part | None = None
    num_fewshot: Shots | None = None
    limit: Count | None = None
    precision: Precision | None = None
    decide: Literal["sign", "best", "all"] | None = None
    ask: Part | None = None
    metric: Text | None = None
    higher_is_better: bool | None = None
    filter: Text | None = None
    apply_chat_template: bool = False
    groups: Text | None = None
    tags: tuple[Text, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _named_as_its_task(cls, value: Any) -> Any:
        return target_mapping(value)

    def conflicts(self) -> Iterable[Conflict]:
        return target_conflicts(self.model_dump())


class Study(Settings):
    """One study: a base, sources, targets, and how.

    name: what the run folder is called: letters, digits and ``. _ -``, at most 100.
    model: the base model.
    lora: the adapters' shape, for all sources that say nothing else.
    training: how adapters are trained, for all sources that say nothing else.
    seeds: an adapter of every source is trained for each seed; several show how far the seed moves the
        matrix.
    sources: what adapters are trained on, or adapters that exist.
    targets: what base and adapters are asked, beside the targets of the sources themselves.
    limit: evaluate at most this many items of each target.
    limit_takes: which items a ``limit`` of targets leaves: ``sample``, drawn at random with ``sample_seed``,
        or ``first``, those at the beginning of the data, as lm-eval's own ``--limit`` has it. Data that are
        sorted by class need a sample.
    sample_seed: seed of drawing examples of sources and items of targets with a ``limit``, and of variations;
        and of the order of items where cells may end early.
    precision: a cell ends early once half the width of its gain's interval is at most this: points of shares
        of right answers, of other metrics their own unit. Its interval holds at every look
        (docs/ask-less.md).
    decide: a cell ends early once its ``sign`` is clear, or, with ``best``, once it cannot be the best source
        of its target any more, or no other can. With ``precision`` too, what comes first ends it. ``all``
        asks all items, whatever the study says of other targets.
    ask: share of its items after which every cell ends, if no other rule has ended it before.
    anchors: the base and so many sources, the first of the study, are asked every item; what the others do on
        the items that they are not asked is estimated with their help. ``precision`` then counts to the gain
        on all items of the target. 0: the base alone. Needs ``precision``, ``decide`` or ``ask``.
    include_path: folders with further lm-eval task files.
    data: a folder with copies of hub datasets and of the base, ``org__name/`` each, used in place of the hub.
    allow_code: whether code may run that comes with the study: Python functions that its own task files name
        (``!function``), on this machine, and programs that a model writes, in a sandbox. Without it such task
        files are refused, and the cells of such targets stay missing.
    drift: whether a run also measures how far each adapter has moved from the base where nothing was asked:
        its cross-entropy on neutral text beyond the base's, and its KL from the base there and on prompts of
        its own source. ``true`` takes the text that comes with traitmap, a file other text, paragraphs
        between blank lines.
    output: folder that holds runs; the run lies in ``output/name``.
    trait_names: names that you give to the first traits, in their order.
    path: the file that the study was read from; relative paths in it are relative to that file. Set by
        ``load_study``, not by you.
    """

    name: Name
    model: Model
    lora: Lora = Lora()
    training: Training = Training()
    seeds: Annotated[tuple[Seed, ...], NOT_EMPTY, AfterValidator(distinct_seeds)] = (0,)
    sources: Annotated[tuple[Source, ...], NOT_EMPTY]
    targets: tuple[Target, ...] = ()
    limit: Count | None = None
    limit_takes: Literal["sample", "first"] = "sample"
    sample_seed: Seed = 0
    precision: Precision | None = None
    decide: Literal["sign", "best", "all"] | None = None
    ask: Part | None = None
    anchors: Shots | None = None
    include_path: tuple[Text, ...] = ()
    data: Text | None = None
    allow_code: bool = False
    drift: TruthOrText = False
    output: Text = "runs"
    trait_names: tuple[Text, ...] = ()
    path: Path | None = Field(default=None, exclude=True)

    def conflicts(self) -> Iterable[Conflict]:
        return study_conflicts(self.model_dump())

    def source(self, name: str) -> Source | None:
        """The source of this name, or None."""
        return next((source for source in self.sources if source.name == name), None)

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from: the study file's, without a file the current one."""
        return self.path.parent if self.path else Path.cwd()


def target_of(source: Source) -> Target | None:
    """The target that a source brings itself, with the source's own templates and labels; None without."""
    own = source.target
    if own is None or source.path is None:
        return None
    elsewhere = {} if own.path else {"subset": source.subset, "revision": source.revision}
    shared = ("prompt", "completion", "label", "labels", "train_on")
    given = {
        **own.model_dump(),
        **{key: getattr(source, key) for key in shared},
        **elsewhere,
        "name": own.name or source.name,
        "path": own.path or source.path,
        "split": own.split or ("test" if own.path else source.split),
        "tags": own.tags or source.tags,
    }
    return Target.model_validate(given, context=RULES_APART)  # a format needs no prompt beside its answer


def settings_of(study: Study, source: Source) -> tuple[Training, Lora]:
    """Training and LoRA settings of one source: the study's, changed where the source says so.

    A source that says how long to train replaces the study's length, whichever way that was given.
    A variation starts from the settings of the source that it is made from.
    """
    origin = study.source(source.from_) if source.from_ is not None else None
    if origin is None:
        training, lora = study.training.model_dump(), study.lora.model_dump()
    else:
        before = settings_of(study, origin)
        training, lora = before[0].model_dump(), before[1].model_dump()
    if any(source.training.get(key) is not None for key in LENGTHS):
        training.update(dict.fromkeys(LENGTHS))
    return (
        Training.model_validate({**training, **source.training}),
        Lora.model_validate({**lora, **source.lora}),
    )
