"""SHA-256 (FIPS 180-4), by which the files of an exported folder are compared with their description."""

comptime ROUNDS = 64


def rotated(word: UInt32, bits: UInt32) -> UInt32:
    return (word >> bits) | (word << (32 - bits))


def fractional_bits(root: Int, number: Int) -> UInt32:
    """The first 32 bits of the fraction of the square (2) or cube (3) root of a number, by bisection in integers."""
    var low = UInt128(0)
    var high = UInt128(1) << 40
    while high - low > 1:
        var middle = (low + high) >> 1
        var power = middle * middle
        var target = UInt128(number) << 64
        if root == 3:
            power = power * middle
            target = target << 32
        if power <= target:
            low = middle
        else:
            high = middle
    return UInt32(low & 0xFFFFFFFF)


def primes(count: Int) -> List[Int]:
    var found = List[Int]()
    var candidate = 2
    while len(found) < count:
        var is_prime = True
        for prime in found:
            if candidate % prime == 0:
                is_prime = False
        if is_prime:
            found.append(candidate)
        candidate += 1
    return found^


def padded(content: List[UInt8], count: Int) -> List[UInt8]:
    """The first `count` bytes, a bit 1, zeros, and their number in bits, so that whole blocks of 64 bytes result."""
    var result = List[UInt8](capacity=count + 128)
    for i in range(count):
        result.append(content[i])
    result.append(0x80)
    while len(result) % 64 != 56:
        result.append(0)
    for i in range(8):
        result.append(UInt8((count * 8 >> (8 * (7 - i))) & 0xFF))
    return result^


def sha256(content: List[UInt8], count: Int) -> String:
    """Of the first `count` bytes, in hexadecimal."""
    var constants = List[UInt32]()
    for prime in primes(ROUNDS):
        constants.append(fractional_bits(3, prime))
    var state = List[UInt32]()
    for prime in primes(8):
        state.append(fractional_bits(2, prime))
    var bytes = padded(content, count)
    var w = List[UInt32](length=ROUNDS, fill=0)
    for start in range(0, len(bytes), 64):
        for i in range(16):
            var word = UInt32(0)
            for j in range(4):
                word = (word << 8) | UInt32(bytes[start + 4 * i + j])
            w[i] = word
        for i in range(16, ROUNDS):
            var a = w[i - 15]
            var b = w[i - 2]
            var s0 = rotated(a, 7) ^ rotated(a, 18) ^ (a >> 3)
            var s1 = rotated(b, 17) ^ rotated(b, 19) ^ (b >> 10)
            w[i] = w[i - 16] + s0 + w[i - 7] + s1
        mix(state, w, constants)
    var digits = String("0123456789abcdef")
    var text = String()
    for word in state:
        for i in range(8):
            var digit = Int((word >> UInt32(28 - 4 * i)) & 15)
            text += digits[byte=digit : digit + 1]
    return text^


def mix(mut state: List[UInt32], w: List[UInt32], constants: List[UInt32]):
    var a = state[0]
    var b = state[1]
    var c = state[2]
    var d = state[3]
    var e = state[4]
    var f = state[5]
    var g = state[6]
    var h = state[7]
    for i in range(ROUNDS):
        var s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)
        var t1 = h + s1 + ((e & f) ^ (~e & g)) + constants[i] + w[i]
        var s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)
        var t2 = s0 + ((a & b) ^ (a & c) ^ (b & c))
        h = g
        g = f
        f = e
        e = d + t1
        d = c
        c = b
        b = a
        a = t1 + t2
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d
    state[4] += e
    state[5] += f
    state[6] += g
    state[7] += h
