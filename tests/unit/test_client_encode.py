"""Live encoding: a generated clip to H.264 and Opus payloads, and back to pictures and sound."""

from __future__ import annotations

from pathlib import Path

import pytest

av = pytest.importorskip("av", reason="PyAV (extra `client`) is not installed")

from forwarder.client import encode, h264  # noqa: E402
from forwarder.client.decode import Decoded, Decoder  # noqa: E402
from forwarder.rtp.codecs import Codec  # noqa: E402

WIDTH, HEIGHT = 320, 180


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One second: 25 pictures that change, and a tone in 44.1 kHz mono."""
    np = pytest.importorskip("numpy")
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        audio = out.add_stream("aac", rate=44100, layout="mono")
        for n in range(25):
            picture = np.full((360, 640, 3), n * 10, dtype=np.uint8)
            picture[:, : n * 25] = (250, 20, 20)
            for packet in video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                out.mux(packet)
        samples = (np.sin(np.arange(44100) / 20) * 0.3).astype(np.float32).reshape(1, -1)
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        sound.rate = 44100
        for packet in [*audio.encode(sound), *audio.encode(None), *video.encode(None)]:
            out.mux(packet)
    return str(path)


def test_pictures_repeat_by_time_and_scale(clip: str) -> None:
    loop_s = encode.duration_s(clip)
    pictures = encode.Pictures(clip, WIDTH, HEIGHT, loop_s)
    shown = [pictures.at(n / 30) for n in range(int(30 * loop_s * 2.5))]
    assert {(frame.width, frame.height) for frame in shown} == {(WIDTH, HEIGHT)}
    first = shown[0].to_ndarray()
    again = encode.Pictures(clip, WIDTH, HEIGHT, loop_s)
    again.at(loop_s - 0.05)
    assert (again.at(loop_s + 0.001).to_ndarray() == first).all()


def test_key_frames_come_first_and_on_request_only(clip: str) -> None:
    pictures = encode.Pictures(clip, WIDTH, HEIGHT, encode.duration_s(clip))
    encoder = encode.VideoEncoder(WIDTH, HEIGHT, 30, 300_000)
    keyframes = []
    for n in range(60):
        payloads = encoder.encode(pictures.at(n / 30), n / 30, keyframe=n == 41)
        assert max(map(len, payloads)) <= h264.PAYLOAD_MAX
        if h264.is_keyframe_start(payloads[0]):
            keyframes.append(n)
    assert keyframes == [0, 41]


def test_what_is_encoded_is_decoded(clip: str) -> None:
    loop_s = encode.duration_s(clip)
    pictures = encode.Pictures(clip, WIDTH, HEIGHT, loop_s)
    encoder = encode.VideoEncoder(WIDTH, HEIGHT, 30, 300_000)
    sound = encode.Sound(clip, loop_s, 32_000)
    frames: list[object] = []
    decoder = Decoder(lambda track, frame: frames.append(frame))
    video, audio = Decoded(Codec.H264), Decoded(Codec.OPUS)
    depacketiser = h264.Depacketiser()
    for n in range(45):
        payloads = encoder.encode(pictures.at(n / 30), n / 30, keyframe=False)
        for index, payload in enumerate(payloads):
            picture = depacketiser.push(payload, index == len(payloads) - 1)
        assert picture is not None
        assert decoder.push(video, picture)
        assert decoder.push(audio, sound.next_packet())
    decoder.push(video, None)
    decoder.close()
    assert (video.frames, video.errors, video.size) == (45, 0, (WIDTH, HEIGHT))
    assert audio.frames == 45
    assert len(frames) == 90


def test_broken_pictures_are_counted_and_decoding_goes_on() -> None:
    decoder = Decoder()
    video = Decoded(Codec.H264)
    for _ in range(5):
        decoder.push(video, b"\x00\x00\x00\x01\x65" + bytes(50))
    decoder.close()
    assert video.frames == 0


def test_a_file_that_is_no_clip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("not a clip")
    with pytest.raises(encode.NoMedia, match=r"text\.mp4"):
        encode.duration_s(str(path))
    with pytest.raises(encode.NoMedia, match="missing"):
        encode.has(str(tmp_path / "missing.mp4"))
