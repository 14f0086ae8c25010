"""What a linear classifier of word frequencies gets on Reuters R8: the yardstick for bert-reuters.

Run as ``python -m benchmarks.training.linear_texts`` after ``edgedl data fetch reuters``.
"""

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from edgedl.models.data.datasets import load_texts


def main() -> None:
    """Print the share of right answers on the test split, and the number of weights."""
    train, test = load_texts("reuters", "train"), load_texts("reuters", "test")
    words = TfidfVectorizer()
    linear = LinearSVC().fit(words.fit_transform(train.texts), train.labels)
    score = 100 * linear.score(words.transform(test.texts), test.labels)
    print(f"{score:.2f} % of {len(test)} texts, {linear.coef_.size} weights")


if __name__ == "__main__":
    main()
