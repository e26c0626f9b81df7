"""A small member of each family of timm's: features, or one sentence that says what to do."""

import re
import warnings

import numpy as np
import pytest

from cvgl_ray.errors import InputError
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.pretransform import Pretransform
from cvgl_ray.features.weights import build_model

# Small ones, so that all take a few minutes on one core; two sizes each.
NAMES = """
         botnet26t_256     cait_xxs24_224     caformer_s18     coat_lite_tiny
    coatnet_nano_rw_224     convformer_s18     convit_tiny     convnext_atto
    cpubone_b0_bfrobust     crossvit_9_240     cs3darknet_s     cspnext_tiny     davit_tiny
    deit_tiny_patch16_224     deit_tiny_distilled_patch16_224     densenet121     dla46_c
    dpn48b     edgenext_xx_small     efficientformer_l1     efficientformerv2_s0
    efficientnet_b0     efficientvim_m1     efficientvit_b0     efficientvit_m0
    ese_vovnet19b_slim     eva02_tiny_patch14_224     fasternet_t0     fastvit_t8
    gcvit_xxtiny     ghostnet_050     gmixer_12_224     gmlp_ti16_224     halonet26t
    hardcorenas_a     hgnetv2_b0     hiera_tiny_224     hrnet_w18_small     inception_next_atto
    lambda_resnet26t     lcnetv2_small     legacy_seresnet18     levit_128s     levit_conv_128s
    lowformer_b0     mambaout_femto     maxvit_pico_rw_256     mixer_s32_224
    mobilenetv3_small_050     mobilenetv4_conv_small     mobileone_s0     mobilevit_xxs
    mobilevitv2_050     mvitv2_tiny     nest_tiny     nf_resnet26     pit_ti_224
    pit_ti_distilled_224     poolformer_s12     pvt_v2_b0     rdnet_tiny     regnetx_002
    repghostnet_050     repvit_m0_9     res2net50_48w_2s     resmlp_12_224     resnest14d
    resnet10t     resnetv2_18     rexnet_100     selecsls42     shvit_s1     skresnet18
    starnet_s050     swiftformer_xs     swin_tiny_patch4_window7_224     swinv2_cr_tiny_224
    swinv2_tiny_window8_256     tiny_vit_5m_224     tnt_s_patch16_224     twins_svt_small
    visformer_tiny     vit_relpos_small_patch16_224     vit_tiny_patch16_224
    vit_tiny_r_s16_p8_224     volo_d1_224     xcit_nano_12_p16_224
"""
SENTENCE = re.compile(
    r"gives no features of images of \d+ x \d+ px \(.+\); .+|cannot take backbone\.image_size"
)
# Of those above, what gives none at its own size: several maps at once.
NONE_AT_ALL = {"crossvit_9_240", "efficientvim_m1"}


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [0, 160])
@pytest.mark.parametrize("name", NAMES.split())
def test_a_family_gives_features_or_one_sentence(name, image_size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of timm's own code
        try:
            model = build_model(name, pretrained=False, image_size=image_size)
            layers = (-2, "final")
            made = FrozenBackbone(
                model, layers=layers, pooling="mean", rings=(0.5, 1.5), image_size=image_size
            )
            made.try_out()
        except InputError as error:
            told = str(error)
        else:
            told = ""
    if told:
        assert SENTENCE.search(told), told
        assert "\n" not in told
        assert image_size or name in NONE_AT_ALL, told
        return
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 3, *made.preparing.shape), dtype=np.uint8)
    before = made.embed(images, Pretransform())
    np.testing.assert_allclose(np.linalg.norm(before, axis=1), 1, atol=1e-5)
    made.fold()
    np.testing.assert_allclose(made.embed(images, Pretransform()), before, atol=1e-4)
