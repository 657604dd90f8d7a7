"""Who runs the jobs of the service: this machine (`local`); the interface (`base`) leaves room for many machines."""
