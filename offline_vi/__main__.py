"""``python -m offline_vi`` is ``offline-vi``."""

from offline_vi.scripts import main

if __name__ == "__main__":
    main()
