"""Numbers in, numbers out: intervals, resampling, permutation, paired comparison, ranking, power.

Where to look, by question:

| question | function |
|---|---|
| how well is a group's value known? | `permutation.group_rates`; AUROC: `intervals.delong`, `auroc_limits` |
| is a gap more than chance gives? | `permutation.judge`; AUROC: `auroc.judge_auroc` |
| … at the pooled class mix? | `standardised.standardised_gap` |
| … as an equity-scaled score? | `equity.judge_equity_scaled` |
| do two methods differ in gap, score, worst or best group, equity-scaled score? | `paired.compare` |
| … in the score over all rows? | `paired.mean_difference`; AUROC: `learned.auroc_difference` |
| did a method move the groups unequally, and which? | `interaction.interaction` |
| has a model learned anything? | `learned.auroc_over_chance`, `balanced_over_chance` |
| who stands above whom? | `ranking.dominance`; by one number: `ranking.rank` |
| what could have been found? | `power` |
| seeds or patients? | `variance` |

Every p-value and its interval agree: p <= .05 exactly where the 95 % interval leaves out no difference.
"""
