import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # for `packing_toys`, which data workers and scripts import too
