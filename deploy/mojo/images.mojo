"""PAM files of 8 bits, as `pixels` of deploy/cpp writes them: what the network sees of one image or more."""

from network import read_file, whole_number


def read_images(path: String) raises -> List[List[UInt8]]:
    """The pixels of each image of a PAM file; their number is compared with the network's later."""
    var content = read_file(path)
    var images = List[List[UInt8]]()
    var next = 0
    while next < len(content) or len(images) == 0:
        var line = read_line(content, next)
        if line != "P7":
            raise Error(path + " is not a PAM file, as `pixels` of deploy/cpp writes it")
        var count = 1
        while line != "ENDHDR" and next < len(content):
            for key in ["WIDTH ", "HEIGHT ", "DEPTH "]:
                if line.startswith(String(key)):
                    var side = whole_number(path, String(line[byte = String(key).byte_length() :]))
                    count *= min(side, len(content))
                    count = min(count, len(content))  # the file has fewer numbers than that
            next += line.byte_length() + 1
            line = read_line(content, next)
        next += line.byte_length() + 1
        if next + count > len(content):
            raise Error(path + " is truncated")
        var pixels = List[UInt8](capacity=count)
        for i in range(next, next + count):
            pixels.append(content[i])
        images.append(pixels^)
        next += count
    return images^


def read_line(content: List[UInt8], first: Int) -> String:
    """The characters before the next end of a line; at most 80, and none at the end of the file."""
    var line = String()
    for i in range(first, min(len(content), first + 80)):
        if content[i] == 10:
            break
        line += chr(Int(content[i]))
    return line^
