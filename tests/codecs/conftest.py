import pytest
from hypothesis import settings

from gramkeep import JSONCodec
from gramkeep.codec import MessagePackCodec

# No examples are kept on disk, and a busy machine fails nothing.
settings.register_profile("codecs", database=None, deadline=None, max_examples=100)
settings.load_profile("codecs")


@pytest.fixture(params=[JSONCodec(), MessagePackCodec()], ids=str)
def codec(request):
    """Each of the codecs that encode by themselves."""
    return request.param
