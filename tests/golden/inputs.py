# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Deterministic input builders for the golden vectors.

Only NumPy is needed.  Every array is produced from ``numpy.random.Generator(PCG64(seed))`` with
plain arithmetic, then rounded to a dyadic grid (a multiple of 1/1024 or 1/8192) and stored as
float32, so the same bits come out on every platform and survive a cast to float64 unchanged.
The golden JSON files carry a CRC-32 of each array; ``crc()`` below recomputes it, and the tests compare them.

Coordinate conventions: image size is always (height, width) in pixels; boxes are normalised
(cx, cy, w, h); feature maps are channel-first, rows are y, columns are x.
"""

import zlib

import numpy as np

GRID = 1024.0  # predictions are multiples of 1/GRID
GRID_GT = 8192.0  # ground-truth coordinates are multiples of 1/GRID_GT


def generator(seed):
    return np.random.Generator(np.random.PCG64(seed))


def snap(x, grid=GRID):
    """Round to the nearest multiple of 1/grid and store as float32."""
    return (np.rint(np.asarray(x, dtype=np.float64) * grid) / grid).astype(np.float32)


def crc(array):
    """CRC-32 of the little-endian C-ordered bytes (float32 / int64)."""
    a = np.ascontiguousarray(np.asarray(array))
    a = a.astype("<f4") if a.dtype.kind == "f" else a.astype("<i8")
    return zlib.crc32(a.tobytes()) & 0xFFFFFFFF


def level_shapes(imgsz, strides):
    return [(imgsz[0] // s, imgsz[1] // s) for s in strides]


def anchor_table(imgsz, strides):
    """Points (A, 2) in grid units (x, y) and strides (A,), level by level, row-major."""
    points, step = [], []
    for (h, w), s in zip(level_shapes(imgsz, strides), strides, strict=False):
        for row in range(h):
            for col in range(w):
                points.append((col + 0.5, row + 0.5))
                step.append(float(s))
    return np.asarray(points), np.asarray(step)


# ---------------------------------------------------------------------------------------------
# ground truth
# ---------------------------------------------------------------------------------------------
def ground_truth(p, g):
    """Return batch_idx (N,), cls (N,), bboxes (N, 4) normalised cx cy w h.

    p["counts"]   number of boxes per image (list, length = batch size)
    p["size"]     (low, high) side length as a fraction of the image side
    p["special"]  optional list of explicit rows [image, class, cx, cy, w, h] appended per image
    p["shuffle"]  optional, permute the rows so images are interleaved in the batch
    """
    lo, hi = p.get("size", (0.15, 0.6))
    rows = []
    for image, n in enumerate(p["counts"]):
        for _ in range(n):
            w, h = lo + (hi - lo) * g.random(2)
            cx = w / 2 + (1.0 - w) * g.random()
            cy = h / 2 + (1.0 - h) * g.random()
            rows.append([image, int(g.integers(0, p["nc"])), cx, cy, w, h])
        rows += [r for r in p.get("special", []) if r[0] == image]
    rows = np.asarray(rows, dtype=np.float64).reshape(-1, 6)
    if p.get("shuffle") and len(rows):
        rows = rows[g.permutation(len(rows))]
    return (rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), snap(rows[:, 2:], GRID_GT))


def _owner(points, step, boxes_px):
    """For each anchor the index of the smallest box containing it, or -1."""
    own = np.full(len(points), -1)
    best = np.full(len(points), np.inf)
    px = points * step[:, None]
    for k, (x1, y1, x2, y2) in enumerate(boxes_px):
        inside = (px[:, 0] > x1) & (px[:, 0] < x2) & (px[:, 1] > y1) & (px[:, 1] < y2)
        area = max((x2 - x1) * (y2 - y1), 0.0)
        take = inside & (area < best)
        own[take] = k
        best[take] = area
    return own


def _to_px(boxes, imgsz):
    h, w = imgsz
    b = np.asarray(boxes, dtype=np.float64)
    return np.stack(
        [
            (b[:, 0] - b[:, 2] / 2) * w,
            (b[:, 1] - b[:, 3] / 2) * h,
            (b[:, 0] + b[:, 2] / 2) * w,
            (b[:, 1] + b[:, 3] / 2) * h,
        ],
        1,
    )


def _bins(dist, reg_max, g, sharp=0.6, noise=0.35):
    """Logits over reg_max bins, one parabola per side centred on the wanted distance."""
    if reg_max == 1:
        return dist[..., None]
    k = np.arange(reg_max)
    gap = k - np.clip(dist, 0.0, reg_max - 1.0)[..., None]
    return -sharp * gap * gap + noise * g.standard_normal(gap.shape)


def _split_levels(flat, imgsz, strides):
    """(B, A, C) -> list of (B, C, H, W)."""
    out, start = [], 0
    for h, w in level_shapes(imgsz, strides):
        part = flat[:, start : start + h * w]
        out.append(np.ascontiguousarray(part.transpose(0, 2, 1).reshape(flat.shape[0], -1, h, w)))
        start += h * w
    return out


# ---------------------------------------------------------------------------------------------
# anchor-free criteria
# ---------------------------------------------------------------------------------------------
def detection_maps(p, g, image_of, cls, boxes):
    """Predicted maps (list of float32 (B, 4*reg_max + nc, H, W)).

    p["predictions"]: "informed" (default) puts boxes near the ground truth; "random" is pure noise.
    """
    imgsz, strides, nc, reg_max = p["imgsz"], p["strides"], p["nc"], p["reg_max"]
    points, step = anchor_table(imgsz, strides)
    flat = []
    for image in range(len(p["counts"])):
        sel = image_of == image
        if p.get("predictions", "informed") == "random":
            box = g.standard_normal((len(points), 4, reg_max))
            if reg_max == 1:
                box = np.abs(box) * 2.0 + 0.25
            score = g.standard_normal((len(points), nc)) - 1.0
        else:
            px = _to_px(boxes[sel], imgsz)
            own = _owner(points, step, px)
            top = min(reg_max, 8) if reg_max > 1 else 4
            want = 0.3 + (top - 0.3) * g.random((len(points), 4)) * 0.6
            fg = own >= 0
            if fg.any():
                b = px[own[fg]] / step[fg][:, None]
                a = points[fg]
                exact = np.stack([a[:, 0] - b[:, 0], a[:, 1] - b[:, 1], b[:, 2] - a[:, 0], b[:, 3] - a[:, 1]], 1)
                want[fg] = np.maximum(exact * (1.0 + 0.12 * g.standard_normal(exact.shape)), 0.05)
            box = _bins(want, reg_max, g)
            score = -3.0 + 0.9 * g.standard_normal((len(points), nc))
            if fg.any():
                score[np.nonzero(fg)[0], cls[sel][own[fg]]] += 3.5
        flat.append(np.concatenate([box.reshape(len(points), -1), score], 1))
    return _split_levels(snap(np.stack(flat)), imgsz, strides)


def build_detect(p):
    g = generator(p["seed"])
    image_of, cls, boxes = ground_truth(p, g)
    return {"feats": detection_maps(p, g, image_of, cls, boxes), "batch_idx": image_of, "cls": cls, "bboxes": boxes}


def build_end2end(p):
    g = generator(p["seed"])
    image_of, cls, boxes = ground_truth(p, g)
    return {
        "one2many": detection_maps(p, g, image_of, cls, boxes),
        "one2one": detection_maps(p, g, image_of, cls, boxes),
        "batch_idx": image_of,
        "cls": cls,
        "bboxes": boxes,
    }


def build_segment(p):
    """p["nm"], p["mask_hw"] (ground-truth mask size), p["proto_hw"], p["overlap"]."""
    g = generator(p["seed"])
    image_of, cls, boxes = ground_truth(p, g)
    feats = detection_maps(p, g, image_of, cls, boxes)
    anchors = sum(h * w for h, w in level_shapes(p["imgsz"], p["strides"]))
    batch = len(p["counts"])
    mh, mw = p["mask_hw"]
    yy, xx = np.mgrid[0:mh, 0:mw]
    one = []
    for cx, cy, w, h in boxes.astype(np.float64):  # an ellipse filling the box
        u = ((xx + 0.5) / mw - cx) * 2.0
        v = ((yy + 0.5) / mh - cy) * 2.0
        one.append((u * u * h * h + v * v * w * w) < (w * w * h * h))
    one = np.asarray(one, dtype=np.float32).reshape(-1, mh, mw)
    if p["overlap"]:
        masks = np.zeros((batch, mh, mw), dtype=np.float32)
        for image in range(batch):  # big objects first, small ones on top
            idx = np.nonzero(image_of == image)[0]
            area = boxes[idx, 2].astype(np.float64) * boxes[idx, 3]
            for local in np.argsort(-area, kind="stable"):
                masks[image][one[idx[local]] > 0] = local + 1
    else:
        masks = one
    proto = snap(0.7 * g.standard_normal((batch, p["nm"], *p["proto_hw"])))
    coef = snap(0.7 * g.standard_normal((batch, p["nm"], anchors)))
    out = {
        "feats": feats,
        "coef": coef,
        "proto": proto,
        "masks": masks,
        "batch_idx": image_of,
        "cls": cls,
        "bboxes": boxes,
    }
    if p.get("semantic"):
        out["semantic_logits"] = snap(g.standard_normal((batch, p["nc"], *p["semantic"])))
        sem = np.zeros((batch, mh, mw), dtype=np.int64)
        for image in range(batch):
            idx = np.nonzero(image_of == image)[0]
            area = boxes[idx, 2].astype(np.float64) * boxes[idx, 3]
            for local in np.argsort(-area, kind="stable"):
                sem[image][one[idx[local]] > 0] = cls[idx[local]]
        out["sem_masks"] = sem
    return out


def build_pose(p):
    """p["kpt_shape"] = (K, D) with D in {2, 3}."""
    g = generator(p["seed"])
    image_of, cls, boxes = ground_truth(p, g)
    feats = detection_maps(p, g, image_of, cls, boxes)
    nk, nd = p["kpt_shape"]
    points, step = anchor_table(p["imgsz"], p["strides"])
    batch, anchors = len(p["counts"]), len(points)
    h, w = p["imgsz"]
    gtk = np.zeros((len(boxes), nk, nd), dtype=np.float32)
    for i, (cx, cy, bw, bh) in enumerate(boxes.astype(np.float64)):
        off = g.random((nk, 2)) - 0.5
        gtk[i, :, 0] = snap(cx + bw * off[:, 0], GRID_GT)
        gtk[i, :, 1] = snap(cy + bh * off[:, 1], GRID_GT)
        if nd == 3:
            vis = g.integers(0, 3, nk)
            if p.get("all_invisible") and i == 0:
                vis[:] = 0
            gtk[i, :, 2] = vis
            gtk[i, vis == 0, :2] = 0.0
    kpts = np.empty((batch, anchors, nk, nd))
    for image in range(batch):
        sel = np.nonzero(image_of == image)[0]
        own = _owner(points, step, _to_px(boxes[sel], p["imgsz"]))
        kpts[image] = 0.8 * g.standard_normal((anchors, nk, nd))
        for a in np.nonzero(own >= 0)[0]:
            k = gtk[sel[own[a]]].astype(np.float64)
            kpts[image, a, :, 0] = (k[:, 0] * w / step[a] - (points[a, 0] - 0.5)) / 2 + 0.25 * g.standard_normal(nk)
            kpts[image, a, :, 1] = (k[:, 1] * h / step[a] - (points[a, 1] - 0.5)) / 2 + 0.25 * g.standard_normal(nk)
    kpts = snap(kpts.reshape(batch, anchors, nk * nd)).transpose(0, 2, 1)
    return {
        "feats": feats,
        "kpts": np.ascontiguousarray(kpts),
        "keypoints": gtk,
        "batch_idx": image_of,
        "cls": cls,
        "bboxes": boxes,
    }


def build_obb(p):
    """Rotated boxes (cx, cy, w, h normalised, angle in radians); angle map (B, 1, A) in radians."""
    g = generator(p["seed"])
    image_of, cls, boxes = ground_truth(p, g)
    theta = snap(-0.75 + 3.0 * g.random(len(boxes)), GRID_GT)
    if "theta" in p:  # the same angle for every box
        theta = snap(np.full(len(boxes), p["theta"]), GRID_GT)
    imgsz, strides, nc, reg_max = p["imgsz"], p["strides"], p["nc"], p["reg_max"]
    h, w = imgsz
    points, step = anchor_table(imgsz, strides)
    flat, angle = [], []
    for image in range(len(p["counts"])):
        sel = np.nonzero(image_of == image)[0]
        top = min(reg_max, 8) if reg_max > 1 else 4
        want = 0.3 + (top - 0.3) * g.random((len(points), 4)) * 0.6
        ang = -0.75 + 3.0 * g.random(len(points))
        score = -3.0 + 0.9 * g.standard_normal((len(points), nc))
        best = np.full(len(points), np.inf)
        for k in sel:
            cx, cy, bw, bh = boxes[k].astype(np.float64) * np.array([w, h, w, h])
            t = float(theta[k])
            dx, dy = points[:, 0] * step - cx, points[:, 1] * step - cy
            u = dx * np.cos(t) + dy * np.sin(t)
            v = -dx * np.sin(t) + dy * np.cos(t)
            take = (np.abs(u) < bw / 2) & (np.abs(v) < bh / 2) & (bw * bh < best)
            best[take] = bw * bh
            exact = np.stack([bw / 2 + u, bh / 2 + v, bw / 2 - u, bh / 2 - v], 1) / step[:, None]
            jitter = 1.0 + 0.12 * g.standard_normal(exact.shape)
            want[take] = np.maximum(exact * jitter, 0.05)[take]
            ang[take] = (t + 0.1 * g.standard_normal(len(points)))[take]
            score[take] = (-3.0 + 0.9 * g.standard_normal((len(points), nc)))[take]
            score[take, cls[k]] += 3.5
        flat.append(np.concatenate([_bins(want, reg_max, g).reshape(len(points), -1), score], 1))
        angle.append(ang)
    return {
        "feats": _split_levels(snap(np.stack(flat)), imgsz, strides),
        "angle": snap(np.stack(angle))[:, None, :],
        "batch_idx": image_of,
        "cls": cls,
        "bboxes": np.concatenate([boxes, theta[:, None]], 1),
    }


def build_classify(p):
    g = generator(p["seed"])
    logits = snap(p.get("scale", 2.0) * g.standard_normal((p["batch"], p["nc"])))
    return {"logits": logits, "cls": g.integers(0, p["nc"], p["batch"]).astype(np.int64)}


# ---------------------------------------------------------------------------------------------
# anchor-based criteria
# ---------------------------------------------------------------------------------------------
ANCHORS_P5 = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]], [[116, 90], [156, 198], [373, 326]]]
ANCHORS_P7 = [
    [[8, 9], [14, 20], [24, 16]],
    [[26, 38], [44, 30], [46, 60]],
    [[60, 90], [96, 70], [100, 120]],
    [[130, 170], [200, 140], [190, 220]],
    [[240, 300], [320, 250], [330, 340]],
]


def anchors_grid(name, strides):
    """(levels, 3, 2) anchor (w, h) in grid units of each level."""
    table = {"P5": ANCHORS_P5, "P7": ANCHORS_P7}[name]
    return snap(np.asarray(table, dtype=np.float64) / np.asarray(strides, dtype=np.float64)[:, None, None], GRID_GT)


def build_anchor_based(p):
    """p["anchors"] in {"P5", "P7"}; optional nm / proto_hw / mask_hw / overlap for segmentation."""
    g = generator(p["seed"])
    image_of, cls, boxes = ground_truth(p, g)
    anchors = anchors_grid(p["anchors"], p["strides"])
    extra = p.get("nm", 0)
    preds = []
    for h, w in level_shapes(p["imgsz"], p["strides"]):
        t = g.standard_normal((len(p["counts"]), anchors.shape[1], h, w, 5 + p["nc"] + extra))
        t[..., 4] -= 2.0
        preds.append(snap(t))
    out = {
        "preds": preds,
        "anchors": anchors,
        "targets": np.concatenate([np.stack([image_of, cls], 1).astype(np.float32), boxes], 1).astype(np.float32),
    }
    if extra:
        seg = dict(p, reg_max=1, counts=p["counts"])
        mh, mw = p["mask_hw"]
        yy, xx = np.mgrid[0:mh, 0:mw]
        one = []
        for cx, cy, w, h in boxes.astype(np.float64):
            u = ((xx + 0.5) / mw - cx) * 2.0
            v = ((yy + 0.5) / mh - cy) * 2.0
            one.append((u * u * h * h + v * v * w * w) < (w * w * h * h))
        one = np.asarray(one, dtype=np.float32).reshape(-1, mh, mw)
        if seg["overlap"]:
            masks = np.zeros((len(p["counts"]), mh, mw), dtype=np.float32)
            for image in range(len(p["counts"])):
                idx = np.nonzero(image_of == image)[0]
                for local, k in enumerate(idx):
                    masks[image][one[k] > 0] = local + 1
        else:
            masks = one
        out["masks"] = masks
        out["proto"] = snap(0.7 * g.standard_normal((len(p["counts"]), extra, *p["proto_hw"])))
    return out


def build_worked_example(p):
    """The worked example: 5 targets, 2 images of 320 x 320, 20 classes, 3 levels."""
    g = generator(p["seed"])
    anchors = np.asarray(
        [
            [[1.25, 1.625], [2.0, 3.75], [4.125, 2.875]],
            [[1.875, 3.8125], [3.875, 2.8125], [3.6875, 7.4375]],
            [[3.625, 2.8125], [4.875, 6.1875], [11.65625, 10.1875]],
        ],
        dtype=np.float32,
    )
    targets = np.asarray(
        [
            [0, 14, 0.49535, 0.50528, 0.15267, 0.56956],
            [0, 0, 0.54872, 0.92491, 0.05361, 0.03183],
            [0, 0, 0.36780, 0.98716, 0.06031, 0.02567],
            [1, 6, 0.97072, 0.04398, 0.05856, 0.08796],
            [1, 16, 0.70696, 0.10348, 0.32971, 0.16793],
        ],
        dtype=np.float32,
    )
    preds = [snap(g.standard_normal((2, 3, 320 // s, 320 // s, 25))) for s in (8, 16, 32)]
    return {"preds": preds, "anchors": anchors, "targets": targets}


# ---------------------------------------------------------------------------------------------
# set-prediction criterion
# ---------------------------------------------------------------------------------------------
def build_rtdetr(p):
    """Decoder outputs: boxes (L, B, Q, 4) in (0, 1) and logits (L, B, Q, nc); L includes the encoder layer first.

    With p["dn_groups"] > 0 also denoising outputs (L-1 layers) laid out in 2*groups slots of max_n queries.
    """
    g = generator(p["seed"])
    image_of, cls, boxes = ground_truth(p, g)
    layers, q, batch = p["layers"], p["queries"], len(p["counts"])

    def near(shape_q, owners):
        bx = 0.1 + 0.8 * g.random((batch, shape_q, 4))
        bx[..., 2:] = 0.05 + 0.45 * g.random((batch, shape_q, 2))
        sc = -2.5 + g.standard_normal((batch, shape_q, p["nc"]))
        for image in range(batch):
            idx = np.nonzero(image_of == image)[0]
            for slot, local in owners(image, len(idx)):
                k = idx[local]
                bx[image, slot] = np.clip(boxes[k] * (1 + 0.1 * g.standard_normal(4)), 0.01, 0.99)
                sc[image, slot, cls[k]] += 3.0
        return snap(bx, GRID_GT), snap(sc)

    def plain(image, n):
        slots = g.permutation(q)[: min(n, q)]
        return [(int(s), i) for i, s in enumerate(slots)]

    pairs = [near(q, plain) for _ in range(layers)]
    out = {
        "boxes": np.stack([x for x, _ in pairs]),
        "logits": np.stack([y for _, y in pairs]),
        "batch_idx": image_of,
        "cls": cls,
        "bboxes": boxes,
    }
    groups, biggest = p.get("dn_groups", 0), max(p["counts"])
    if groups and biggest:

        def slots(image, n):
            return [(biggest * blk + i, i) for blk in range(2 * groups) for i in range(n)]

        pairs = [near(2 * groups * biggest, slots) for _ in range(layers - 1)]
        out["dn_boxes"] = np.stack([x for x, _ in pairs])
        out["dn_logits"] = np.stack([y for _, y in pairs])
    return out


def build_denoising(p):
    """Noise arrays for the contrastive denoising builder.

    flip_u (M,) uniform, new_label (M,) integers, sign01 (M, 4) in {0, 1}, magnitude (M, 4) uniform,
    with M = 2 * groups * N and groups = max(1, num_dn // max_n).
    """
    g = generator(p["seed"])
    image_of, cls, boxes = ground_truth(p, g)
    biggest = max(p["counts"])
    groups = max(1, p["num_dn"] // biggest) if biggest else 0
    m = 2 * groups * len(boxes)
    return {
        "batch_idx": image_of,
        "cls": cls,
        "bboxes": boxes,
        "flip_u": snap(g.random(m)),
        "new_label": g.integers(0, p["nc"], m).astype(np.int64),
        "sign01": g.integers(0, 2, (m, 4)).astype(np.int64),
        "magnitude": snap(g.random((m, 4))),
        "embed": snap(g.standard_normal((p["nc"], 4))),
        "batch": np.int64(len(p["counts"])),
    }


def build_attributes(p):
    """Attribute logits per name (B, Q, classes), labels (N,) with -1 = unknown, and fixed matches.

    p["attributes"] {name: number of classes}; match_image / match_query / match_row list the matched pairs.
    """
    g = generator(p["seed"])
    image_of, _, _ = ground_truth(p, g)
    out = {"batch_idx": image_of}
    for name, n in p["attributes"].items():
        out["logits_" + name] = snap(1.5 * g.standard_normal((len(p["counts"]), p["queries"], n)))
        label = g.integers(0, n, len(image_of)).astype(np.int64)
        label[g.random(len(image_of)) < p.get("unknown", 0.0)] = -1
        out["labels_" + name] = label
    img, qry, row = [], [], []
    for image in range(len(p["counts"])):
        rows = np.nonzero(image_of == image)[0]
        slots = np.sort(g.permutation(p["queries"])[: len(rows)])
        img += [image] * len(rows)
        qry += slots.tolist()
        row += rows.tolist()
    out.update(
        match_image=np.asarray(img, dtype=np.int64),
        match_query=np.asarray(qry, dtype=np.int64),
        match_row=np.asarray(row, dtype=np.int64),
    )
    return out


# ---------------------------------------------------------------------------------------------
# elementary terms
# ---------------------------------------------------------------------------------------------
def build_box_pairs(p):
    """Pairs of boxes xywh in pixels, incl. identical, disjoint, nested and zero-size ones."""
    g = generator(p["seed"])
    a = 5 + 100 * g.random((p["n"], 4))
    b = a * (1 + 0.3 * g.standard_normal((p["n"], 4)))
    b[:, 2:] = np.abs(b[:, 2:]) + 0.5
    b[0] = a[0]
    b[1, :2] = a[1, :2] + 500
    b[2, :2], b[2, 2:] = a[2, :2], a[2, 2:] / 4
    if p.get("degenerate"):
        b[3, 2:] = 0
        b[4, 3] = 0
        a[5, 2:] = 0
    theta = snap(-0.75 + 3.0 * g.random((p["n"], 2)), GRID_GT)
    theta[0, 1] = theta[0, 0]
    return {"a": snap(a), "b": snap(b), "theta": theta}


def build_logit_targets(p):
    """logits (R, C), soft targets in [0, 1], hard one-hot targets, class index."""
    g = generator(p["seed"])
    logits = snap(3.0 * g.standard_normal((p["rows"], p["nc"])))
    index = g.integers(0, p["nc"], p["rows"]).astype(np.int64)
    hard = np.zeros_like(logits)
    hard[np.arange(p["rows"]), index] = 1
    return {
        "logits": logits,
        "soft": snap(g.random((p["rows"], p["nc"]))),
        "hard": hard,
        "index": index,
        "quality": snap(g.random(p["rows"])),
    }


BUILDERS = {name[6:]: fn for name, fn in list(globals().items()) if name.startswith("build_")}
