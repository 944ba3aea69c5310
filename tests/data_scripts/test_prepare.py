"""The downloader of the full benchmark, on a server of its own: what breaks, what lies, what is malicious."""
import hashlib
import io
import shutil
import socket
import tarfile
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from lookalikes import PUG, change, class_folders, split_json, transfer_pictures, transfer_set
from test_full import expect_small

import minipsync as mp
from data_scripts import download as dl
from data_scripts import prepare as pr
from data_scripts.__main__ import main
from data_scripts.download import Unavailable, download
from data_scripts.extract import BadArchive, find, unpack
from data_scripts.sources import SOURCES, Mirror, Piece, Source
from minipsync.data.imagenet import FOLDERS
from minipsync.data.imagenet_classes import imagenet_classes
from minipsync.data.splits import SPLITS

BODY = bytes(range(256)) * 8                                            # 2048 bytes
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Sends files as their entries say: {"body", "ranges", "cuts", "codes", "headers", "etag", "length"}."""

    def do_GET(self):
        entry = self.server.files.get(self.path, {"codes": [404] * 99})
        body, wanted = entry.get("body", b""), self.headers.get("Range")
        code, start = (entry.get("codes") or [200]).pop(0), 0
        fresh = self.headers.get("If-Range") in (None, entry.get("etag"))
        if wanted and entry.get("ranges", True) and fresh and code == 200:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            code = 206 if start < len(body) else 416
        if self.headers["Accept-Encoding"] != "identity":               # else it may be sent compressed
            code = 400
        rest = body[start:] if code in (200, 206) else b""
        send = rest[:(entry.get("cuts") or [None]).pop(0)]
        self.server.seen.append((self.path, wanted, len(send)))
        self.send_response(code)
        if code in (206, 416):
            where = f"{start}-{len(body) - 1}" if rest else "*"
            self.send_header("Content-Range", f"bytes {where}/{len(body)}")
        if "etag" in entry:
            self.send_header("ETag", entry["etag"])
        for key, value in entry.get("headers", {}).items():
            self.send_header(key, value)
        if entry.get("length", True):
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(send)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(dl, "PAUSE", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        site.files, site.seen = {}, []
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        site.url = f"http://127.0.0.1:{site.server_port}"
        yield site
        site.shutdown()
        thread.join()


@pytest.fixture
def dead():
    """The address of a server that does not run."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}"


def pack(folder, top="", kind="zip"):
    """The files below `folder` as a zip or tar.gz file; `top` is put before their names."""
    file = io.BytesIO()
    found = [(f, top + f.relative_to(folder).as_posix()) for f in sorted(folder.rglob("*")) if f.is_file()]
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for path, name in found:
                archive.write(path, name)
    else:
        with tarfile.open(fileobj=file, mode=kind) as archive:
            for path, name in found:
                archive.add(path, name)
    return file.getvalue()


# ---- one file

def test_an_interrupted_file_is_resumed_with_only_the_rest(server, tmp_path):
    server.files["/x.bin"] = {"body": BODY, "cuts": [700, 500], "etag": '"1"'}
    file = download(Mirror(f"{server.url}/x.bin", check=SHA, size=2048), tmp_path)
    assert file.read_bytes() == BODY and [f.name for f in tmp_path.iterdir()] == [file.name]
    assert [seen[1:] for seen in server.seen] == [(None, 700), ("bytes=700-", 500), ("bytes=1200-", 848)]


def test_a_later_run_resumes_what_an_earlier_one_left(server, tmp_path):
    mirror = Mirror(f"{server.url}/x.bin", check=SHA)
    server.files["/x.bin"] = {"body": BODY, "cuts": [700, 0, 0, 0, 0, 0]}
    with pytest.raises(Unavailable, match="5 times in a row"):
        download(mirror, tmp_path)
    part, = tmp_path.glob("*.part")
    assert part.read_bytes() == BODY[:700] and len(server.seen) == 6
    assert download(mirror, tmp_path).read_bytes() == BODY
    assert server.seen[-1] == ("/x.bin", "bytes=700-", 1348)
    download(mirror, tmp_path)
    assert len(server.seen) == 7                                        # it is here: nobody was asked


def test_a_server_that_cannot_resume_sends_all_again(server, tmp_path):
    server.files["/x.bin"] = {"body": BODY, "cuts": [700], "ranges": False}
    assert download(Mirror(f"{server.url}/x.bin", check=SHA), tmp_path).read_bytes() == BODY
    assert server.seen[1] == ("/x.bin", "bytes=700-", 2048)
    server.files["/y.bin"] = {"body": BODY, "cuts": [9, 5, 7] * 9, "ranges": False}
    with pytest.raises(Unavailable, match="connection failed .* 5 times in a row"):      # and not for ever
        download(Mirror(f"{server.url}/y.bin"), tmp_path)


def test_a_server_that_does_not_tell_the_length(server, tmp_path):
    server.files["/x.bin"] = {"body": BODY, "cuts": [700], "ranges": False, "length": False}
    assert download(Mirror(f"{server.url}/x.bin", check=SHA, size=2048), tmp_path).read_bytes() == BODY
    assert [sent for *_, sent in server.seen] == [700, 2048]


def test_a_file_that_changed_is_not_joined_to_the_old_part(server, tmp_path):
    mirror = Mirror(f"{server.url}/x.bin")
    server.files["/x.bin"] = {"body": b"old" * 500, "cuts": [700, 0, 0, 0, 0, 0], "etag": '"old"'}
    with pytest.raises(Unavailable):
        download(mirror, tmp_path)
    server.files["/x.bin"] = {"body": BODY, "etag": '"new"'}
    assert download(mirror, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("part", [b"?" * 300, b"?" * 2048, b"?" * 4000])
def test_a_part_that_does_not_fit_costs_one_more_try(part, server, tmp_path):
    mirror = Mirror(f"{server.url}/x.bin", check=SHA, size=2048)
    server.files["/x.bin"] = {"body": BODY}
    dl.local(mirror, tmp_path).with_suffix(".bin.part").write_bytes(part)
    assert download(mirror, tmp_path).read_bytes() == BODY


def test_a_whole_part_is_only_checked(server, tmp_path):
    mirror = Mirror(f"{server.url}/x.bin", check=SHA, size=2048)
    dl.local(mirror, tmp_path).with_suffix(".bin.part").write_bytes(BODY)
    assert download(mirror, tmp_path).read_bytes() == BODY and server.seen == []


@pytest.mark.parametrize("entry, mirror, match, requests", [
    ({"codes": [404]}, {}, "HTTP 404", 1),
    ({"codes": [403]}, {}, "HTTP 403", 1),
    ({"codes": [503] * 9}, {}, "busy or broken .HTTP 503.*5 times", 5),
    ({"body": BODY[:900]}, {"size": 2048}, "900 bytes, expected 2048", 1),
    ({"body": BODY}, {"check": "sha256:" + "0" * 64}, "its checksum is not sha256:0000", 1),
    ({"body": BODY}, {"check": "md5:" + "0" * 32}, "its checksum is not md5:0000", 1),
    ({"body": BODY, "headers": {"Content-Type": "text/html; charset=utf-8"}}, {}, "web page", 1),
    ({"body": BODY, "headers": {"X-Linked-Etag": f'"{"0" * 64}"'}}, {}, "its checksum is not sha256:0000", 1),
])
def test_a_mirror_without_the_right_file_is_told(entry, mirror, match, requests, server, tmp_path):
    server.files["/x.bin"] = entry
    with pytest.raises(Unavailable, match=match):
        download(Mirror(f"{server.url}/x.bin", **mirror), tmp_path)
    assert len(server.seen) == requests and not list(tmp_path.glob("*x.bin"))


def test_a_busy_server_is_asked_again_and_bytes_stay_as_sent(server, tmp_path, monkeypatch):
    linked = {"X-Linked-Etag": SHA.removeprefix("sha256:"), "Location": "/cdn"}
    server.files["/x.tgz"] = {"codes": [503, 429, 302], "headers": linked}
    server.files["/cdn"] = {"body": BODY, "headers": {"Content-Encoding": "gzip"}}       # which it is not
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    assert download(Mirror("https://huggingface.co/x.tgz"), tmp_path).read_bytes() == BODY
    assert [path for path, *_ in server.seen] == ["/x.tgz", "/x.tgz", "/x.tgz", "/cdn"]


# ---- archives

def evil_tar(name, kind=tarfile.REGTYPE, link="", content=b"x"):
    file, info = io.BytesIO(), tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content) if kind == tarfile.REGTYPE else 0
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def evil_zip(name, mode=0, content=b"x", times=1):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(times):
            info = zipfile.ZipInfo(name.format(i))
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return file.getvalue()


@pytest.mark.parametrize("content, match", [
    (evil_tar("../x"), "'../x', which leads out"), (evil_tar("a/../../x"), "leads out"),
    (evil_tar("/x"), "leads out"), (evil_zip("../x"), "leads out"), (evil_zip("/x"), "leads out"),
    (evil_zip("..\\x"), "leads out"), (evil_zip("C:x"), "leads out"),
    (evil_tar("x", tarfile.SYMTYPE, "../../secret"), "a symbolic link to '../../secret'"),
    (evil_tar("x", tarfile.SYMTYPE, "y"), "a symbolic link"),
    (evil_tar("x", tarfile.LNKTYPE, "y"), "a hard link"), (evil_tar("x", tarfile.CHRTYPE), "device"),
    (evil_tar("x", tarfile.BLKTYPE), "device"), (evil_tar("x", tarfile.FIFOTYPE), "or other special"),
    (evil_zip("x", 0o120777), "a symbolic link"), (evil_zip("x", 0o010644), "special file"),
    (evil_tar("x", content=bytes(200_000)), "more than 0.0001 GB"),
    (evil_zip("x", content=bytes(200_000)), "more than 0.0001 GB"),
    (evil_zip("{}", times=21), "more than 20 members"),
    (evil_tar("x", content=BODY)[:200], "cut off"), (evil_zip("x", content=BODY)[:-30], "cut off"),
    (b"<html>", "no tar or zip file"), (b"", "no tar or zip file"),
], ids=lambda value: value if isinstance(value, str) else "")           # the bytes hold the time of day
def test_dangerous_and_damaged_archives_are_refused(content, match, tmp_path):
    (tmp_path / "archive").write_bytes(content)
    (tmp_path / "in/folder").mkdir(parents=True)
    with pytest.raises(BadArchive, match=match):
        unpack(tmp_path / "archive", tmp_path / "in/folder", 100_000, 20)
    assert {f.name for f in tmp_path.iterdir()} == {"archive", "in"}
    assert [f.name for f in (tmp_path / "in").iterdir()] == ["folder"]
    assert not any(f.is_symlink() for f in (tmp_path / "in").rglob("*"))


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:xz"])
def test_what_is_wanted_is_found_at_the_smallest_depth(kind, tmp_path):
    for name in ("top/images/a/images/1", "top/b/images/2", "top/c.json", "__MACOSX/images/3"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    (tmp_path / "archive.tar.gz").write_bytes(pack(tmp_path / "in", kind=kind))       # whatever it is called
    unpack(tmp_path / "archive.tar.gz", tmp_path / "out", 1000, 10)
    assert find(tmp_path / "out", "images") == tmp_path / "out/top/images"
    assert find(tmp_path / "out", "c.json").read_text() == "top/c.json"
    with pytest.raises(BadArchive, match="no 'jpg'; at the top it has top$"):
        find(tmp_path / "out", "jpg")
    (tmp_path / "out/other/images").mkdir(parents=True)
    with pytest.raises(BadArchive, match="more than once"):
        find(tmp_path / "out", "images")


# ---- data sets

@pytest.fixture
def dtd(server, dead, tmp_path, monkeypatch):
    """`dtd` with a good mirror behind bad ones, as the registry then expects it; -> the root to fill."""
    origin = tmp_path / "origin"
    transfer_set(origin, "dtd")
    expect_small(monkeypatch, "dtd")
    server.files |= {"/page": {"body": b"<html>", "headers": {"Content-Type": "text/html"}},
                     "/wrong.json": {"body": b"{}"}, "/split.json":
                     {"body": (origin / "dtd/split_zhou_DescribableTextures.json").read_bytes()},
                     "/evil.tar": {"body": evil_tar("../x")},
                     "/dtd.zip": {"body": pack(origin, "zoo/")}}
    at, bad = server.url, "sha256:" + "0" * 64
    monkeypatch.setitem(SOURCES, "dtd", Source(0.0001, "for tests", "nowhere.org", (
        Piece("dtd/split_zhou_DescribableTextures.json", tuple(
            Mirror(f"{at}/{name}") for name in ("page", "wrong.json", "split.json"))),
        Piece("dtd/images", (Mirror(f"{dead}/d.zip", "images"), Mirror(f"{at}/none", "images"),
                             Mirror(f"{at}/dtd.zip?1", "images", bad), Mirror(f"{at}/evil.tar", "images"),
                             Mirror(f"{at}/split.json", "images"), Mirror(f"{at}/dtd.zip", "images"))))))
    server.files["/dtd.zip?1"] = server.files["/dtd.zip"]
    return tmp_path / "root"


def test_from_nothing_to_a_data_set_past_every_bad_mirror(dtd, server, capsys):
    assert main(["prepare", "dtd", "--root", str(dtd)]) == 0
    data = mp.benchmark("full", root=dtd).dataset("dtd")
    told = capsys.readouterr().out
    assert len(data) == 4 and data.class_names == ["banded", "polka-dotted"]
    assert told.count("Terms: for tests") == 1
    assert told.endswith("dtd                ready: train 6, val 2, test 4\n")
    for reason in ("connection failed", "HTTP 404", "checksum is not", "leads out", "no tar or zip file",
                   "web page", "cannot be read"):
        assert reason in told
    assert {f.name for f in (dtd / "dtd").iterdir()} == {"images", "split_zhou_DescribableTextures.json"}
    assert list((dtd / ".downloads").iterdir()) == []
    requests = len(server.seen)
    assert main(["prepare", "dtd", "--root", str(dtd)]) == 0                # there and good: nobody is asked
    assert len(server.seen) == requests and "ready, was there" in capsys.readouterr().out


def test_only_what_is_not_there_is_fetched(dtd, server):
    transfer_pictures(dtd / "dtd/images", "dtd")
    assert pr.prepare(["dtd"], dtd) == 0
    assert not [path for path, *_ in server.seen if "zip" in path]
    (dtd / "dtd/split_zhou_DescribableTextures.json").write_text("{")       # a damaged list is fetched again
    assert pr.prepare(["dtd"], dtd) == 0


def test_a_run_killed_before_or_after_unpacking_leaves_nothing_that_looks_whole(dtd, server, monkeypatch):
    class Killed(BaseException):
        pass

    split_json(dtd / "dtd/split_zhou_DescribableTextures.json", "dtd")
    for step in ("unpack", "find", "_replace"):
        with monkeypatch.context() as m:
            def kill(*_, m=m):
                m.setattr(shutil, "rmtree", lambda *_, **__: None)          # the dead do not tidy up
                raise Killed
            m.setattr(pr, step, kill)
            with pytest.raises(Killed):
                pr.prepare(["dtd"], dtd)
        assert list((dtd / "dtd").glob(".unpacking-*")) and not (dtd / "dtd/images").exists()
        with pytest.raises(ValueError, match="4 of 4 pictures"):
            mp.benchmark("full", root=dtd).dataset("dtd")
    server.files["/dtd.zip"] = {"codes": [404]}                             # it came before and was kept
    assert pr.prepare(["dtd"], dtd) == 0
    assert len(mp.benchmark("full", root=dtd).dataset("dtd", "train")) == 6
    assert not list((dtd / "dtd").glob(".*"))


def test_check_tells_what_is_there(dtd, capsys, monkeypatch):
    dtd.mkdir()
    assert main(["check", "dtd", "--root", str(dtd)]) == 1
    assert "missing" in (told := capsys.readouterr().out) and f"prepare dtd --root '{dtd}'\n" in told
    pr.prepare(["dtd"], dtd)
    assert main(["check", "dtd", "--root", str(dtd)]) == 0
    assert "have     train 6, val 2, test 4" in capsys.readouterr().out
    picture = dtd / "dtd/images/banded/x_0004.jpg"
    good = picture.read_bytes()
    picture.write_bytes(b"")
    assert main(["check", "dtd", "--root", str(dtd)]) == 1
    told = capsys.readouterr().out
    assert "damaged  train 6, val 2\n" in told and "banded/x_0004.jpg' of 'dtd' cannot be opened" in told
    picture.unlink()
    assert main(["prepare", "dtd", "--root", str(dtd)]) == 1                # the user's is not replaced
    assert "1 of 4 pictures" in (told := capsys.readouterr().out) and "--again" in told
    assert main(["prepare", "dtd", "--root", str(dtd), "--again"]) == 0 and picture.read_bytes() == good
    monkeypatch.setenv("MINIPSYNC_ROOT", str(dtd))
    assert main(["check"]) == 0                                             # nothing was named
    told = capsys.readouterr().out
    assert "1 of 25 good" in told and "imagenet           missing" in told and "--root" in told


def test_too_little_disk_stops_one_data_set_before_its_start(dtd, server, monkeypatch, capsys):
    monkeypatch.setitem(SOURCES, "sketch", Source(7.6, "t", "h", (Piece("x", (Mirror(server.url + "/x"),)),)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(9e9, 0, 5e9))
    assert main(["prepare", "sketch", "dtd", "--root", str(dtd)]) == 1
    told = capsys.readouterr().out
    assert "sketch             FAILED: sketch needs 16.7 GB of free disk" in told
    assert "5.0 GB are free" in told
    assert "dtd                ready" in told and "/x" not in [path for path, *_ in server.seen]


def test_no_mirror_at_all_is_one_clear_failure(dtd, server, capsys):
    del server.files["/dtd.zip"]
    assert main(["prepare", "dtd", "--root", str(dtd)]) == 1
    told = capsys.readouterr().out
    assert "no mirror has 'dtd/images'. Tried:" in told and "it comes from nowhere.org" in told
    assert told.count("HTTP 404") >= 2 and told.count("leads out") >= 2
    assert not list((dtd / ".downloads").glob("*evil.tar"))                 # or it would stay the first


def test_a_mirror_whose_copy_is_incomplete_is_followed_by_the_next(dtd, server, tmp_path, capsys):
    picture = tmp_path / "origin/dtd/images/banded/x_0004.jpg"
    whole, content = server.files["/dtd.zip"]["body"], picture.read_bytes()
    picture.unlink()
    server.files["/evil.tar"] = {"body": pack(tmp_path / "origin", kind="w")}
    assert pr.prepare(["dtd"], dtd) == 0
    assert (dtd / "dtd/images/banded/x_0004.jpg").read_bytes() == content
    server.files["/dtd.zip"] = {"codes": [404] * 9}
    capsys.readouterr()
    assert pr.prepare(["dtd"], dtd, again=True) == 1                        # nobody has it whole
    assert "dtd                FAILED: data set 'dtd' in" in (told := capsys.readouterr().out)
    assert "1 of 4 pictures of test" in told
    assert pr.prepare(["dtd"], dtd, again=True) == 1                        # and evil.tar is still the first
    server.files["/dtd.zip"] = {"body": whole}
    assert pr.prepare(["dtd"], dtd, again=True) == 0
    assert not list((dtd / ".downloads").iterdir())


def serve(server, monkeypatch, name, content, *pieces, **fields):
    """Let SOURCES name one archive on the server for all pieces (target, what to take)."""
    server.files[f"/{name}"] = {"body": content}
    monkeypatch.setitem(SOURCES, name, Source(0.01, "t", "h", tuple(
        Piece(target, (Mirror(f"{server.url}/{name}", take, **fields),) if take else ())
        for target, take in pieces), SOURCES[name].by_hand, SOURCES[name].names))


def test_other_layouts(server, tmp_path, monkeypatch):
    """A whole folder from inside (aircraft), an archive in an archive (caltech), folders of ids (a)."""
    origin, root = tmp_path / "origin", tmp_path / "root"
    for name in ("fgvc_aircraft", "caltech101"):
        transfer_set(origin, name)
        expect_small(monkeypatch, name)
    serve(server, monkeypatch, "fgvc_aircraft", pack(origin / "fgvc_aircraft", "fgvc-2013b/data/", "w:gz"),
          ("fgvc_aircraft", "fgvc-2013b/data"))
    wrapped = tmp_path / "wrapped/caltech-101"
    wrapped.mkdir(parents=True)
    (wrapped / "inner.tar.gz").write_bytes(pack(origin / "caltech-101", kind="w:gz"))
    serve(server, monkeypatch, "caltech101", pack(wrapped.parent),
          ("caltech-101/101_ObjectCategories", "101_ObjectCategories"),
          ("caltech-101/split_zhou_Caltech101.json", "split_zhou_Caltech101.json"), inner="inner.tar.gz")
    class_folders(origin / "imagenet-a", [imagenet_classes()[0][i] for i in imagenet_classes()[2]["a"]])
    change(monkeypatch, "a", sizes={"test": 200})
    serve(server, monkeypatch, "a", pack(origin / "imagenet-a", "imagenet-a/", "w"),
          ("imagenet-adversarial/imagenet-a", "imagenet-a"))
    assert pr.prepare(["fgvc_aircraft", "caltech101", "a"], root) == 0
    bench = mp.benchmark("full", root=root)
    assert [len(bench.dataset(name)) for name in ("fgvc_aircraft", "caltech101", "a")] == [6, 10, 200]
    assert len(server.seen) == 3                                            # one request for two pieces


def test_pug_comes_in_one_archive_and_one_file_is_fetched_by_hand(server, tmp_path, monkeypatch, capsys):
    for name in SOURCES["pug"].names:
        class_folders(tmp_path / "origin" / FOLDERS[name].places["test"][0].split("/")[1], PUG, 1, ".png")
    monkeypatch.setattr("minipsync.data.imagenet.PUG_CLASSES", 4)
    serve(server, monkeypatch, "pug", pack(tmp_path / "origin", "PUG_ImageNet/", "w:gz"), *(
        (p.target, p.mirrors[0].take if p.mirrors else None) for p in SOURCES["pug"].pieces))
    root = str(tmp_path / "root")
    assert main(["prepare", "pug", "--root", root]) == 1
    assert f"{root}/PUG_ImageNet/classnames.txt" in capsys.readouterr().out and len(server.seen) == 1
    (tmp_path / "root/PUG_ImageNet/classnames.txt").write_text("".join(f"{n} {n}\n" for n in PUG))
    assert main(["prepare", "pug", "--root", root]) == 0 and len(server.seen) == 1
    assert len(mp.benchmark("full", root=root).dataset("pug_scene_light")) == 4


def test_imagenet_is_verified_and_never_fetched(tmp_path, monkeypatch, capsys):
    assert main(["prepare", "imagenet", "--root", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "register at https://image-net.org" in told and f"ImageNet('{tmp_path}/imagenet', 'val')" in told
    class_folders(tmp_path / "imagenet/val", imagenet_classes()[0])
    change(monkeypatch, "imagenet", sizes={"test": 1000}, each=1)
    assert main(["prepare", "imagenet", "--root", str(tmp_path)]) == 0


# ---- the table and the command line

def test_the_table_fits_the_registry():
    names = [name for key, source in SOURCES.items() for name in source.names or (key,)]
    assert set(names) == set(mp.benchmark("full").names) and len(names) == len(set(names))
    for name in names:
        targets = [piece.target for piece in SOURCES[pr.source_of(name)].pieces]
        if name in SPLITS and name != "fgvc_aircraft":
            spec = SPLITS[name]
            pictures = f"{spec.folder}/{spec.images[0]}".removesuffix("/.")
            assert targets[0] == f"{spec.folder}/{spec.file}"
            assert all(target.startswith(pictures) for target in targets[1:])
        elif name != "imagenet":
            place = SPLITS[name].folder if name in SPLITS else FOLDERS[name].places["test"][0]
            assert place in targets
    for mirror in (m for s in SOURCES.values() for p in s.pieces for m in p.mirrors):
        kind, _, digest = (mirror.check or "md5:" + "0" * 32).partition(":")
        assert len(bytes.fromhex(digest)) == {"sha256": 32, "md5": 16}[kind] and mirror.url.startswith("http")


def test_commands(capsys, tmp_path, monkeypatch):
    assert main([]) == 0 and "data_scripts.make_mini" in capsys.readouterr().out
    assert main(["list"]) == 0 and "CC BY-SA 4.0" in capsys.readouterr().out
    monkeypatch.delenv("MINIPSYNC_ROOT", raising=False)
    for words, match in [(["prepare", "skech", "--root", "x"], "'skech', did you mean 'sketch'?"),
                         (["prepare", "sketch"], "Say --root FOLDER, or set MINIPSYNC_ROOT"),
                         (["check", "--root", str(tmp_path / "none")], "there is no folder")]:
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2 and match in capsys.readouterr().err
