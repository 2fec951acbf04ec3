"""Two ways to let less wait, on dicts of rows: a lone open neighbour, and rungs with their pieces.

Research twins of ``docs/design/0010-contagion.md``; nothing in the package does this. A merge is a
link (child, parent, score) between clusters; what is compared is the partition at every score.
"""

from reference.agglomeration import greedy


def groups(nodes, pairs):
    """Dict of each node to a node that stands for its connected component."""
    above = {n: n for n in nodes}
    for u, v in pairs:
        above[top(above, u)] = top(above, v)
    return {n: top(above, n) for n in nodes}


def top(above, node):
    """End of the way up."""
    while above[node] != node:
        node = above[node]
    return node


def partitions(links, n_nodes):
    """Smallest member of each node's cluster, at every score that occurs."""
    found = {}
    for score in {s for *_, s in links}:
        group = groups(range(n_nodes), [(u, v) for u, v, s in links if s >= score])
        smallest = {}
        for n in range(n_nodes):
            smallest.setdefault(group[n], n)
        found[score] = [smallest[group[n]] for n in range(n_nodes)]
    return found


def contract(rows, keep, gone):
    """Merge two clusters; the name ``keep`` stays, whether or not it is the smaller."""
    rows.pop((min(keep, gone), max(keep, gone)), None)
    for pair in [p for p in rows if gone in p]:
        row, other = rows.pop(pair), sum(pair) - gone
        into = (min(keep, other), max(keep, other))
        rows[into] = rows[into].union(row) if into in rows else row


def touching_nodes(rows, block):
    """Fragments with a contact outside of their block."""
    return {n for pair in rows if block[pair[0]] != block[pair[1]] for n in pair}


def lone_neighbour(rows, block, lowest, score, allowed=1):
    """Every block on its own, then the root; links and the number of nodes that go up.

    Besides what `greedy` does, a closed node whose best edge leads to an open one joins it at once
    if no more than ``allowed`` of its neighbours wait; the open one keeps its name.
    """
    touching, rows, links, up = touching_nodes(rows, block), dict(rows), [], set()
    for home in set(block.values()):
        waiting = {n for n in touching if block[n] == home}
        inside = {p: r for p, r in rows.items() if block[p[0]] == block[p[1]] == home}
        while ready := [
            p for p in inside if score(inside[p]) >= lowest and not waiting.issuperset(p)
        ]:
            u, v = min(ready, key=lambda p: (-score(inside[p]), inside[p].tie))
            if v in waiting:
                u, v = v, u
            ends = [set(p) - {v} for p in inside if v in p]
            if u in waiting and len({n for e in ends for n in e} & waiting) > allowed:
                waiting.add(v)
                continue
            links.append((v, u, score(inside[min(u, v), max(u, v)])))
            contract(inside, u, v)
        up |= waiting
        rows = {p: r for p, r in rows.items() if not block[p[0]] == block[p[1]] == home}
        rows |= {p: r for p, r in inside.items() if waiting.issuperset(p)}
    return links + greedy(rows, lowest, score)[0], len(up)


def by_rungs(rows, block, floors, score, joined_by="any row", counted="component"):
    """Links, and how many closed nodes were decided in their block and how many had to go up.

    For each floor, falling: components of the edges at or above it, over all blocks; in every
    block the *pieces*, closed clusters of one component that any row joins; a piece with at most
    one extended neighbour in its component is worked off there, the others above.
    """
    touching, rows, links, counts = touching_nodes(rows, block), dict(rows), [], [0, 0]
    cluster = {n: n for n in block}
    for floor in floors:
        members = {}
        for n, c in cluster.items():
            members.setdefault(c, []).append(n)
        closed = {
            c for c, own in members.items()
            if len({block[n] for n in own}) == 1 and not touching.intersection(own)
        }  # fmt: skip
        edges = {p for p, r in rows.items() if score(r) >= floor}
        pieces = pieces_of(rows, members, closed, edges, joined_by, counted)
        local = []
        for piece, extended in pieces:
            counts[len(extended) > 1] += len(piece)
            if len(extended) <= 1:
                part = {p: r for p, r in rows.items() if set(p) <= piece | extended}
                local += greedy(part, floor, score)[0]
        name = apply(rows, members, closed, local)
        above, rows = finish(rows, floor, score)
        links += local + above
        name |= {v: u for v, u, _ in above}
        cluster = {n: top(name, c) for n, c in cluster.items()}
    return links, counts


def pieces_of(rows, members, closed, edges, joined_by, counted):
    """[(closed clusters, their extended neighbours)]; the last two name planted faults."""
    component = groups(members, edges)
    own = {p for p in rows if component[p[0]] == component[p[1]]}
    joins = own if joined_by == "any row" else edges
    seen = own if counted == "component" else edges
    piece = groups(closed, [p for p in joins if closed.issuperset(p)])
    found = {c: (set(), set()) for c in set(piece.values())}
    for c in closed:
        found[piece[c]][0].add(c)
    for pair in seen:
        for a, b in (pair, pair[::-1]):
            if a in closed and b not in closed:
                found[piece[a]][1].add(b)
    return list(found.values())


def apply(rows, members, closed, local):
    """Contract what was decided in blocks, extended clusters keep their names; name of each."""
    name = {c: c for c in members}
    for v, u, _ in sorted(local, key=lambda link: -link[2]):
        a, b = top(name, u), top(name, v)
        if b not in closed or (a in closed and b < a):
            a, b = b, a
        contract(rows, a, b)
        name[b] = a
    return name


def finish(rows, floor, score):
    """Greedy merges down to a floor, and the rows that are left."""
    links, _ = greedy(rows, floor, score)
    left = dict(rows)
    for v, u, _ in links:
        contract(left, u, v)
    return links, left
