"""tmp"""

def check_policy(text):
    return None
