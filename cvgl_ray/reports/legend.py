"""What a run's TensorBoard says of itself: whoever opens it has not read this code."""

# What each chart shows, by tag; of a retrieval figure, by its name alone.
MEANING = {
    "em/pairs": "Pairs that the M-step used; by gradient, a pair counts once a step.",
    "em/strongest_attenuation": "Factor of the most attenuated direction; 1: none is attenuated.",
    "em/gradient_norm": "Norm of the last step's gradient, before clipping.",
    "em/temperature": "InfoNCE's temperature after the round.",
    "loss/loss": "What the M-step minimises, at the round's last step: the sum of the other losses.",
    "loss/info_nce": "Contrast of each pseudo-pair with all other candidates, both directions.",
    "loss/reconstruction": "Distance of the decoded embedding to the frozen feature, weighted.",
    "loss/orthogonality": "Distance of the encoder from an isometry, weighted.",
    "labels/labelled": "Kept share: queries that have a pseudo-label.",
    "labels/churn": "Share of queries whose best reference changed since the last round; falls to 0.",
    "labels/coverage": "Share of references that are some query's best; low: a few hubs attract all queries.",
    "labels/mutual": "Share of the smaller view's images whose best partner names them in return; rises.",
    "labels/cycle": "Share of queries that come back to themselves over their best reference.",
    "labels/margin": "Mean lead of a query's best reference over its second best, in the matcher's score.",
    "labels/agreement": "Share of queries to which two models of half the features give the same reference.",
    "labels/score": "Agreement times mutual: the label-free score by which a round is kept.",
    "labels/cosine_of_best": "Cosines of all queries with their best reference.",
    "labels/margin_of_best": "Leads of all queries' best reference over their second best.",
    "alignment/heading_deg": "Where the queries' tops look on their references, degrees clockwise.",
    "alignment/width": "Ground that the queries show, over their references'.",
    "alignment/offset": "Distance of both middles, in shares of the reference's side.",
    "alignment/lead": "Lead of each pair's best pose over the best one elsewhere.",
    "flight/sure": "Photos whose place is sure enough to teach; the last search's are told by the page.",
    "flight/sure_share": "The same as a share of all photos; rises with the rounds where the flight teaches.",
    "flight/mean_lead": "Mean lead of a photo's best place over the best one elsewhere, in mean cosines.",
    "flight/chance_lead": "The lead that a wrong place has on average.",
    "time/e_step_s": "Seconds of embedding and matching all images; slowest worker.",
    "time/m_step_s": "Seconds of updating the adapter; slowest worker.",
    "time/round_s": "Seconds from report to report: both steps, judging, checkpoint, waiting.",
    "system/cores": "CPU cores that the busiest training worker used; mean over the round.",
    "system/peak_rss_mb": "Most memory that a training worker has had, MB; shared features count.",
    "system/peak_gpu_mb": "Most GPU memory that a training worker has had, MB.",
    "R@1": "Test queries whose first answer is right, percent.",
    "R@5": "Test queries with a right answer among the first 5, percent.",
    "R@10": "Test queries with a right answer among the first 10, percent.",
    "R@1%": "Test queries with a right answer among the first hundredth of the gallery, percent.",
    "hit_rate": "Test queries whose first answer is right, semi-positive ones passed over, percent.",
    "AP": "Mean average precision, University-1652's convention, percent.",
    "AP_standard": "Mean average precision, standard convention, percent.",
}

_OVERVIEW = """\
A run adapts a frozen backbone to two unlabelled views of the same ground, in rounds: an E-step guesses which
query image shows which reference (pseudo-labels), an M-step fits the adapter to these pairs. The step of a
chart is the round. Rounds are few: in the settings of "Time series", set smoothing to 0 and do not ignore
outliers, or the first and the last of them are drawn off the chart.

| group | what to look for |
| --- | --- |
| labels/ | Do the guesses settle? `mutual` and `coverage` rise, `churn` falls to 0. No true label is read. |
| em/, loss/ | What the M-step did. |
| retrieval/ | Figures on the test images, read once, after training: step 0 frozen, then the kept round. |
| retrieval/by_round | Pictures: a training query a row, then its best references, best first. |
| retrieval/A->B | Pictures: the same on test images after training; green frame right, red frame wrong. |
| alignment/ | How queries lie on references. Pictures: query, turned query, its ground on the reference. |
| time/, system/ | What a round costs. |
| Projector (menu, top right) | Pseudo-pairs with thumbnails: both images of a good pair lie together. |
"""


def about() -> str:
    """The text "about" in Markdown: what the run does, where to look, what each chart shows."""
    charts = "\n".join(f"| {name} | {meaning} |" for name, meaning in MEANING.items())
    return f"{_OVERVIEW}\n| chart | what it shows |\n| --- | --- |\n{charts}\n"
