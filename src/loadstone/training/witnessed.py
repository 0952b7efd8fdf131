"""The names that a witness and the test which reads it agree on; free of torch, so that the test need not import it."""

FOLDER = "LOADSTONE_RESUME_TEST"
"""The variable that names the test's folder."""

KILL = "LOADSTONE_RESUME_TEST_KILL"
"""The variable that says at which step the process dies."""

RUNS = "runs"
"""Below the test's folder: the directories of the script's runs."""

WITNESS = "witness-{:04}.jsonl"
"""In the test's folder: what one run did in one life of the process."""
