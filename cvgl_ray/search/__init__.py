"""Who is nearest to whom: the only top-k and the only CSLS of the house.

topk: exact kernels over arrays. views: the protocol `Search` of two views, and its local kinds. sharded: the
same over shards. approximate: faiss. csls: a search corrected for hubs. ranks: ranks of what is relevant.
"""
