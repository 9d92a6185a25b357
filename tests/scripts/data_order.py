"""Golden values of the shuffle in tests/data/test_loader.cpp, from an implementation of its own: Philox 4x32-10 as NumPy has
it is 64 bits wide, so this is written from the paper (Salmon et al. 2011) and checked against its known answers."""


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def words(seed, stream):
    block = 0
    while True:
        yield from philox((block & 0xFFFFFFFF, block >> 32, stream, 0), (seed & 0xFFFFFFFF, seed >> 32))
        block += 1


def below(source, n):
    while True:
        product = next(source) * n
        if product % 2**32 >= 2**32 % n:  # Lemire: reject the incomplete interval
            return product >> 32


def permutation(n, seed, stream):
    order, source = list(range(n)), words(seed, stream)
    for i in range(n - 1, 0, -1):
        j = below(source, i + 1)
        order[i], order[j] = order[j], order[i]
    return order


assert philox((0,) * 4, (0,) * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
assert philox((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)) == [
    0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
for epoch in (0, 1):
    print(permutation(10, 42, 0x80000000 + epoch))
