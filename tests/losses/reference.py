"""Reference losses in plain float64 numpy from the papers' formulas, and derivatives."""

import numpy as np


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def byol(p, t):
    return np.mean([2 - 2 * (a @ b) for a, b in zip(unit(p), unit(t), strict=True)])


def simsiam(p, t):
    return -np.mean([a @ b for a, b in zip(unit(p), unit(t), strict=True)])


def barlow_twins(z1, z2, weight=0.0051):
    n, d = z1.shape
    a, b = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (z1, z2))
    total = 0.0
    for i in range(d):
        for j in range(d):
            c = a[:, i] @ b[:, j] / n
            total += (1 - c) ** 2 if i == j else weight * c**2
    return total


def vicreg(z1, z2):
    total = 25 * np.mean((z1 - z2) ** 2)
    for z in (z1, z2):
        d = z.shape[1]
        std = np.sqrt(z.var(0, ddof=1) + 1e-4)
        total += 25 * np.maximum(0, 1 - std).mean() / 2
        cov = np.cov(z.T)
        total += (np.sum(cov**2) - np.sum(np.diag(cov) ** 2)) / d
    return total


def moco_v2(q, k, queue, temperature=0.2):
    q, k = unit(q), unit(k)
    rows = [
        log_softmax(np.array([a @ b, *(queue @ a)]) / temperature)[0]
        for a, b in zip(q, k, strict=True)
    ]
    return -np.mean(rows)


def moco_v3(q, k, temperature=1.0):
    log_p = log_softmax(unit(q) @ unit(k).T / temperature)
    return -2 * temperature * np.mean(np.diag(log_p))


def sinkhorn(scores, epsilon=0.05, iterations=3):
    q = np.exp((scores - scores.max()) / epsilon).T
    k, b = q.shape
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True) * k
        q /= q.sum(0, keepdims=True) * b
    return (q * b).T


def swav(scores, codes, temperature=0.1):
    return -np.mean(np.sum(codes * log_softmax(scores / temperature), axis=1))


def dino(student, teacher, center, student_temperature=0.1, teacher_temperature=0.04):
    terms = []
    for g, t in enumerate(teacher):
        q = np.exp(log_softmax((t - center) / teacher_temperature))
        for v, s in enumerate(student):
            if v != g:
                log_p = log_softmax(s / student_temperature)
                terms.append(-np.mean(np.sum(q * log_p, axis=-1)))
    return np.mean(terms)


def nce(v, positives, negatives, normalizer, num_images, temperature=0.07):
    noise = len(negatives) / num_images
    total = 0.0
    for row, positive in zip(unit(v), positives, strict=True):
        s = np.exp(row @ positive / temperature) / normalizer
        total -= np.log(s / (s + noise))
        s = np.exp(negatives @ row / temperature) / normalizer
        total -= np.sum(np.log(noise / (s + noise)))
    return total / len(v)


def memory_info_nce(v, positives, negatives, temperature=0.1):
    rows = [
        log_softmax(np.array([a @ m, *(negatives @ a)]) / temperature)[0]
        for a, m in zip(unit(v), positives, strict=True)
    ]
    return -np.mean(rows)


def deepcluster(scores, targets, temperature=0.1):
    used = targets >= 0
    log_p = log_softmax(scores / temperature)
    return -np.mean([row[t] for row, t in zip(log_p[used], targets[used], strict=True)])


def supcon(z1, z2, label, temperature=0.1):
    """Loops over anchors and their positives; a pair without a label has its own."""
    u = unit(np.concatenate([z1, z2]))
    names = [c if c >= 0 else f"pair {i}" for i, c in enumerate(label)] * 2
    total = 0.0
    for i in range(len(u)):
        others = [j for j in range(len(u)) if j != i]
        log_p = log_softmax(u[others] @ u[i] / temperature)
        terms = [log_p[k] for k, j in enumerate(others) if names[j] == names[i]]
        total -= np.mean(terms)
    return total / len(u)


def nearest(z, queue):
    """The queue's row that is nearest to each row of z on the sphere."""
    return queue[[np.argmin(np.sum((queue - a) ** 2, axis=1)) for a in unit(z)]]


def nnclr(p, neighbour, temperature=0.1):
    log_p = log_softmax(unit(neighbour) @ unit(p).T / temperature)
    return -np.mean(np.diag(log_p))


def derivative(loss, x, step=1e-5):
    """Central differences in float64, each with a step of the size of x."""
    h = step * np.sqrt(np.mean(x**2))
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        gradient[i] = (loss(up) - loss(down)) / (2 * h)
    return gradient
