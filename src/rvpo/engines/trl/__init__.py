"""TRL: ``RVPOConfig`` and ``RVPOTrainer``, drop-in for ``GRPOConfig`` and ``GRPOTrainer``.

The seam, for TRL 1.16: TRL has no hook for advantages (huggingface/trl#7291). Two private methods are overridden, and
no trainer code is copied: ``_calculate_rewards`` hands over the gathered (N, M) rewards, and
``_generate_and_score_completions`` replaces the advantages that TRL made of them; they fail loudly if TRL changes.
Three more (``_save_checkpoint``, ``_load_optimizer_and_scheduler``, ``_get_train_sampler``) make a resumed run exact.
"""
