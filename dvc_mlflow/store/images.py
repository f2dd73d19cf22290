"""Pictures of a row, which MLflow's charts show beside those of other rows."""

import re
from collections.abc import Mapping
from io import BytesIO

from mlflow.entities import Run

from .store import Store

_LARGEST = 20_000_000  # pixels


def log_images(store: Store, run: Run, images: Mapping[str, bytes]) -> list[str]:
    """Log the pictures that a run lacks, by their paths; return what cannot be shown.

    Raises what the store raises.
    """
    if not images or store.why_no_files(run):
        return []  # `log_files` says why
    from PIL import Image, UnidentifiedImageError  # takes time, and few rows have any

    has = [each.path for each in store.client.list_artifacts(run.info.run_id, "images")]
    notes = []
    for path, body in images.items():
        key = re.sub(r"[^a-zA-Z0-9_\-./ ]", "_", path)
        # MLflow has written `/` as `#` or `~`, and `%` or `+` after the key.
        known = re.compile(f"images/{re.escape(key).replace('/', '[#~]')}[+%]step")
        if any(map(known.match, has)):
            continue
        try:
            with Image.open(BytesIO(body)) as image:
                if image.width * image.height > _LARGEST:
                    raise ValueError(f"it has more than {_LARGEST:,} pixels")
                image.load()
                mode = "RGBA" if image.has_transparency_data else "RGB"
                shown = image.convert(mode)
        except UnidentifiedImageError:
            continue  # it only has the name of one; it is an artifact all the same
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            notes.append(f"image {path}: {error}")
        else:
            store.client.log_image(run.info.run_id, shown, key=key, step=0)
    return notes
