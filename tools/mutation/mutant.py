"""The mutants of a file: by mutmut's operators and, which it lacks, by deleting statements.

mutmut leaves decorated functions alone, because it puts all mutants of a function beside it in one
file. Here each is a whole file, so its operators reach them too, and what stands outside functions.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import Mutation, MutationVisitor, deep_replace
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

NOT_MUTATED = (
    "docstrings and other strings in triple quotes (SQL too), whether SQL is in capitals, "
    "annotations, type variables and aliases, __all__, decorators, calls of len and isinstance, "
    "defaults that are calculated"
)

Key = tuple[str, str, tuple[str, ...]]
"""What a mutant is, wherever its lines have moved to: file, function, lines of the diff."""

DELETED_SMALL = (
    cst.AnnAssign,
    cst.Assert,
    cst.Assign,
    cst.AugAssign,
    cst.Break,
    cst.Continue,
    cst.Del,
    cst.Expr,
    cst.Raise,
    cst.Return,
)
DELETED_COMPOUND = (cst.For, cst.If, cst.Match, cst.Try, cst.While, cst.With)


@dataclass(frozen=True)
class Mutant:
    """A file of the service with one mistake in it."""

    file: str
    function: str
    """Its qualified name; the class's or nothing outside of functions."""
    names: frozenset[str]
    """What a statement outside of functions defines: who uses it tells the mistake."""
    lines: range
    """Of the statement that it is in, up to where it is."""
    whole: range
    """Of the statement that it is in, to its end."""
    head: int
    """The line with the name of its function."""
    original: str
    source: str

    @cached_property
    def key(self) -> Key:
        """What an explanation names it by."""
        old, new = self.original.splitlines(), self.source.splitlines()
        while old and new and old[-1] == new[-1]:
            del old[-1], new[-1]
        while old and new and old[0] == new[0]:
            del old[0], new[0]
        changed = [f"- {line.strip()}" for line in old if line.strip()]
        changed += [f"+ {line.strip()}" for line in new if line.strip()]
        return self.file, self.function, tuple(changed)

    @property
    def diff(self) -> str:
        """The mistake as people read it."""
        old, new = self.original.splitlines(), self.source.splitlines()
        lines = difflib.unified_diff(old, new, self.file, self.file, n=2, lineterm="")
        return "\n".join(lines)


def mutants_of(file: str, original: str) -> list[Mutant]:
    """Make all mutants of a file, each once, from its first line to its last."""
    found = Finder()
    module = MetadataWrapper(cst.parse_module(original)).visit(found)
    mutants: dict[str, Mutant] = {}
    for place, mutation in found.all:
        mutated = deep_replace(module, mutation.original_node, mutation.mutated_node)
        assert isinstance(mutated, cst.Module)
        code = mutated.code  # which is written anew each time that it is asked for
        if code != original and code not in mutants:
            mutants[code] = Mutant(file, *place, original, code)
    return list(mutants.values())


class Place(NamedTuple):
    """Where a mutant is, as `Mutant` has it."""

    function: str
    names: frozenset[str]
    lines: range
    whole: range
    head: int


class Finder(MutationVisitor):
    """mutmut's visitor, which also goes into decorated functions, and deletes statements."""

    def __init__(self) -> None:
        """Begin outside of all functions."""
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))
        self.all: list[tuple[Place, Mutation]] = []
        self._scopes: list[cst.FunctionDef | cst.ClassDef] = []
        self._statements: list[cst.CSTNode] = []
        self._elifs: set[cst.CSTNode] = set()

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Keep where we are, and make the mutants of the node."""
        if isinstance(node, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            self._statements.append(node)
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._scopes.append(node)
        if isinstance(node, cst.If) and node.orelse:
            self._elifs.add(node.orelse)
        return super().on_visit(node)

    def on_leave(self, original_node: cst.CSTNode) -> None:
        """Forget where we were."""
        if self._statements and original_node is self._statements[-1]:
            self._statements.pop()
        if self._scopes and original_node is self._scopes[-1]:
            self._scopes.pop()
        super().on_leave(original_node)

    @property
    def _in_function(self) -> bool:
        return any(isinstance(scope, cst.FunctionDef) for scope in self._scopes)

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return False
        if not self._in_function and isinstance(node, cst.Assign) and m.matches(node, FOR_TOOLS):
            return True
        return super()._skip_node_and_children(node)

    def _create_mutations(self, node: cst.CSTNode) -> None:
        super()._create_mutations(node)
        self.mutations += [Mutation(node, without, None) for without in self._deletions(node)]
        if self.mutations:
            place = self._place(node)
            self.all += [(place, each) for each in self.mutations if not is_same_sql(each)]
            self.mutations.clear()

    def _deletions(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        if not self._in_function:
            return
        if isinstance(node, cst.Expr) and isinstance(node.value, cst.BaseString | cst.Ellipsis):
            return  # a docstring, or a body that is none
        if isinstance(node, cst.AnnAssign) and node.value is None:
            return  # an annotation
        if isinstance(node, DELETED_SMALL):
            yield cst.Pass(semicolon=node.semicolon)
        elif isinstance(node, DELETED_COMPOUND) and node not in self._elifs:
            yield cst.SimpleStatementLine([cst.Pass()], leading_lines=node.leading_lines)

    def _place(self, node: cst.CSTNode) -> Place:
        statement = self._statements[-1] if self._statements else node
        position = self.get_metadata(PositionProvider, statement)
        first, end = position.start.line, position.end.line
        # Of a compound statement only what leads to the node: its body runs in other tests, or not.
        last_of = statement if isinstance(statement, cst.SimpleStatementLine) else node
        last = first if node is statement else self.get_metadata(PositionProvider, last_of).end.line
        if isinstance(statement, cst.FunctionDef):  # a default: who calls it notices
            last = end
        function = ".".join(scope.name.value for scope in self._scopes)
        names = frozenset[str]()
        if not self._in_function:
            names = frozenset(
                {scope.name.value for scope in self._scopes[:1]} or defined(statement)
            )
        head = (
            self.get_metadata(PositionProvider, self._scopes[-1].name).start.line
            if self._scopes
            else first
        )
        return Place(function, names, range(first, last + 1), range(first, end + 1), head)


SQL = re.compile(r"(CREATE|SELECT|INSERT|UPDATE|DELETE|BEGIN|COMMIT|PRAGMA)\b")


def is_same_sql(mutation: Mutation) -> bool:
    """Whether it is a statement of SQL in other letters, large or small: that is the same."""
    old, new = mutation.original_node, mutation.mutated_node
    return (
        isinstance(old, cst.SimpleString)
        and isinstance(new, cst.SimpleString)
        and bool(SQL.match(old.raw_value))
        and old.raw_value.lower() == new.raw_value.lower()
    )


# What only type checkers read. Annotated and Literal are also asked when the service runs.
USED = m.Name("Annotated") | m.Name("Literal")
FOR_TOOLS = m.Assign(
    value=m.Call(func=m.Name("TypeVar") | m.Name("ParamSpec")) | m.Subscript(value=~USED)
) | m.Assign(targets=[m.AssignTarget(m.Name("__all__"))])


def defined(statement: cst.CSTNode) -> set[str]:
    """Return the names that the statement assigns."""
    targets: list[cst.BaseExpression] = []
    for small in statement.body if isinstance(statement, cst.SimpleStatementLine) else ():
        if isinstance(small, cst.Assign):
            targets += [target.target for target in small.targets]
        elif isinstance(small, cst.AnnAssign):
            targets.append(small.target)
    names = [name for target in targets for name in m.findall(target, m.Name())]
    return {name.value for name in names if isinstance(name, cst.Name)}
