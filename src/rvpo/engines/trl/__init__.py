"""TRL: ``RVPOConfig`` and ``RVPOTrainer``, drop-in for ``GRPOConfig`` and ``GRPOTrainer``.

How it connects to TRL 1.16: TRL does not have a hook for advantages (huggingface/trl#7291). So two private methods are
overridden, and no trainer code is copied. ``_calculate_rewards`` returns the gathered (N, M) rewards, and
``_generate_and_score_completions`` replaces the advantages that TRL computed from them. Both raise an error if TRL
changes. Three more methods (``_save_checkpoint``, ``_load_optimizer_and_scheduler``, ``_get_train_sampler``) make a
resumed run exact.
"""
