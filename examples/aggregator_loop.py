"""A training loop of your own with rvpo.Aggregator: REINFORCE over ten lengths of a reply, with three rewards.

Two rewards grow with the length and one falls, so a mean of the rewards gives the third one up. LIFT remembers, from
batch to batch, which reward is furthest behind. Needs the extra torch. Run it with: python examples/aggregator_loop.py
"""

import torch

import rvpo

LENGTHS, GENERATIONS, PROMPTS, STEPS = 10, 8, 4, 60
CHANNELS = ["detail", "advice", "brevity"]


def rewards_of(lengths: torch.Tensor) -> torch.Tensor:
    """Return the rewards (N, 3) in [0, 1] of N replies, whose lengths are 0 to 9."""
    share = lengths / (LENGTHS - 1)
    return torch.stack([share, share.sqrt(), 1 - share], dim=1)


def train(method: str) -> list[float]:
    """Train a policy and return the mean of each reward under it."""
    torch.manual_seed(0)
    logits = torch.zeros(LENGTHS, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=1.0)
    aggregator = rvpo.Aggregator(method, CHANNELS)
    for step in range(STEPS):
        policy = torch.distributions.Categorical(logits=logits)
        lengths = policy.sample((PROMPTS * GENERATIONS,))
        out = aggregator(rewards_of(lengths), num_generations=GENERATIONS, progress=step / STEPS)
        loss = -(out.advantages * policy.log_prob(lengths)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == STEPS // 2:  # a checkpoint: what the method remembers is plain JSON data
            state = aggregator.state_dict()
            aggregator = rvpo.Aggregator(method, CHANNELS)
            aggregator.load_state_dict(state)
    return (logits.softmax(0) @ rewards_of(torch.arange(LENGTHS))).tolist()


def main() -> None:
    """Print how far each method gets on each channel."""
    print("method", *CHANNELS, sep="\t")
    for method in ("gdpo", "rvpo", "lift"):
        print(method, *(f"{mean:.2f}" for mean in train(method)), sep="\t")


if __name__ == "__main__":
    main()
