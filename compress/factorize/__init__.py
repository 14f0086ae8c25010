"""Low rank: a layer becomes two thinner ones where that saves arithmetic."""
