"""`python -m fairbench`, so that `torchrun -m fairbench` and `accelerate launch -m fairbench` run it too."""

from fairbench.cli.main import main

if __name__ == "__main__":
    main(prog_name="fairbench")
