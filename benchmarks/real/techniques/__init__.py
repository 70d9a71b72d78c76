"""Four alignment techniques on SmolLM2-135M-Instruct: refusal training, preference training, constitutional and adversarial.

python -m benchmarks.real.techniques refusal          # or preference, policy, constitutional, adversarial, chain, refusal-full
python -m benchmarks.real.techniques preference --strong --seed 1
"""
