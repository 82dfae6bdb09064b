error("top level one")
