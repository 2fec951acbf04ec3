"""What the help of ``emslice train`` lists is what can be trained."""

from emslice.cli import train
from emslice.recipes import building


def test_the_help_knows_the_recipes_that_there_are_by_the_same_words():
    assert len(building.RECIPES) >= 4
    assert list(train.RECIPES.items()) == list(building.RECIPES.items())


def test_each_recipe_is_a_command():
    assert set(building.RECIPES) <= set(train.command.commands)
