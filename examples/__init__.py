"""Programs that show how jitrt is used."""
